"""What the service holds while it runs, and its two long operations."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from math import inf

from heinfer.errors import KeySetError, SettingError, UnknownModelError
from heinfer.runtime import NativeOptions, choose_backend
from heinfer_server.departure import Departure
from heinfer_server.gate import Gate
from heinfer_server.keystore import EvaluationKeys, KeyStore
from heinfer_server.model_memory import model_options
from heinfer_server.models import ServedModel
from heinfer_server.settings import Settings
from heinfer_server.tasks import Evaluated, Setup
from heinfer_server.workers import WorkerPool

REGISTRATIONS_AT_ONCE = 4
EVALUATIONS_PER_WORKER = 32
"""Requests that may be under way or wait for each worker, so that their bodies have a bound."""

EVALUATIONS_PER_WORKER_AND_KEYS = 8
"""Those of them under one set of keys, so that one client alone does not fill the house."""


class Service:
    """Models, registered keys and workers.

    Raises:
        SettingError: when one client's keys for a model exceed the memory for keys, or the models that of a worker; or
            the backend is not installed.
    """

    def __init__(self, settings: Settings, models: Mapping[str, ServedModel]) -> None:
        self.backend = choose_backend(None if settings.backend == "auto" else settings.backend)
        options = model_options(
            models, self.backend, NativeOptions(settings.threads, inf, settings.constants_folder), settings.model_memory
        )
        setup = Setup(tuple(model.bundle for model in models.values()), self.backend, options)
        for model in models.values():
            if model.keys_length > settings.key_memory:
                raise SettingError(
                    f"one client's keys for {model.name} take {model.keys_length} bytes and the memory for keys has "
                    f"{int(settings.key_memory)}: raise HEINFER_SERVER_KEY_MEMORY"
                )
        self.settings = settings
        self.models = models
        self.keys = KeyStore(settings.key_memory)
        self.registrations = Gate(REGISTRATIONS_AT_ONCE, REGISTRATIONS_AT_ONCE)
        self.evaluations = Gate(
            EVALUATIONS_PER_WORKER * settings.workers, EVALUATIONS_PER_WORKER_AND_KEYS * settings.workers
        )
        self.workers = WorkerPool(setup, settings.workers, settings.evaluation_timeout, self.keys)

    def model(self, name: str) -> ServedModel:
        """The model of that name; UnknownModelError when there is none."""
        try:
            return self.models[name]
        except KeyError:
            raise UnknownModelError("there is no such model here: GET /models lists them") from None

    def require_keys(self, model: ServedModel, key_id: str) -> None:
        """Require that keys are registered for the model.

        Raises:
            UnknownKeysError: when there are none under that id (any more).
            KeySetError: when they were registered for another model.
        """
        if self.keys.get(key_id).model != model.name:
            raise KeySetError("these evaluation keys were registered for another model: register keys for this one")

    async def register(self, model: ServedModel, body: bytes) -> str:
        """Check a frame of keys and keep it; returns the keys' id, raises what ServedModel.check_keys raises."""
        await asyncio.to_thread(model.check_keys, body)
        key_id = self.keys.add(EvaluationKeys(model.name, body))
        await self.workers.forget_gone_keys()  # others may have had to go
        return key_id

    async def forget(self, key_id: str) -> None:
        """Forget keys, here and in the workers; UnknownKeysError when there are none under the id."""
        self.keys.remove(key_id)
        await self.workers.forget_gone_keys()

    async def evaluate(self, model: ServedModel, key_id: str, body: bytes, gone: Departure) -> Evaluated:
        """Check a frame of inputs and evaluate the model; raises what its check and WorkerPool.evaluate raise."""
        await asyncio.to_thread(model.check_inputs, body)
        return await self.workers.evaluate(key_id, body, gone)
