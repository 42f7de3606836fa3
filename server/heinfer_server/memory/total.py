"""The memory of all processes together, predicted before any of them starts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from heinfer.backends import NativeOptions
from heinfer.errors import SettingError
from heinfer_server.evaluation.jobs import JOBS_KEPT
from heinfer_server.evaluation.loaded import MOST_LOADED_KEYS
from heinfer_server.memory.cgroups import memory_limits
from heinfer_server.models import Models
from heinfer_server.settings import Settings

PROCESS_BYTES = 100 << 20
"""Of the interpreter and its libraries, in each process; a worker on SEAL has 95 MB before it loads a model."""


_GIB = 1 << 30
_LEVERS = {
    "processes": " by HEINFER_SERVER_WORKERS",
    "models": " by HEINFER_SERVER_MODEL_MEMORY and WORKERS",
    "loaded_keys": " by HEINFER_SERVER_LOADED_KEY_MEMORY and WORKERS",
    "stored_keys": " by HEINFER_SERVER_KEY_MEMORY",
    "uploads": " by HEINFER_SERVER_KEY_MEMORY",
    "bodies": " by HEINFER_SERVER_WORKERS",
}


@dataclass(frozen=True)
class Prediction:
    """The most bytes that each part takes.

    Attributes:
        processes: interpreters and libraries.
        models: encoded weights and intermediate results, in all workers.
        loaded_keys: clients' keys that workers keep expanded.
        stored_keys: clients' keys that are kept in memory.
        uploads: keys on their way, in pieces or whole.
        bodies: inputs that wait, and outputs; those of jobs that are over among them.
    """

    processes: int
    models: int
    loaded_keys: int
    stored_keys: int
    uploads: int
    bodies: int

    @property
    def total(self) -> int:
        return sum(asdict(self).values())


def predict(
    models: Models,
    settings: Settings,
    backend: str,
    options: Mapping[str, NativeOptions],
    evaluations: int,
    registrations: int,
) -> Prediction:
    """What a service with these settings takes at most.

    Args:
        options: of each version of a model, by its digest.
        evaluations: requests that may wait or be under way.
        registrations: of keys, whole or by piece, at once.
    """
    needs = [model.memory(backend, options[model.digest]) for model in models]
    one_worker = sum(need.plaintexts for need in needs) + max((need.ciphertexts for need in needs), default=0)
    keys = _largest_keys(models, backend)
    bodies = max((model.inputs_length for model in models), default=0)
    outputs = max((model.outputs_length for model in models), default=0)
    whole = max((model.keys.length for model in models), default=0)
    return Prediction(
        processes=(settings.workers + 1) * PROCESS_BYTES,
        models=settings.workers * one_worker,
        loaded_keys=settings.workers * loaded_keys(models, settings, backend) * keys,
        stored_keys=int(settings.key_memory) if settings.key_folder is None else 0,
        uploads=int(settings.key_memory) + registrations * whole,
        bodies=2 * evaluations * bodies + JOBS_KEPT * outputs,
    )


def loaded_keys(models: Models, settings: Settings, backend: str) -> int:
    """Clients whose keys a worker keeps loaded: at least that of the request which it evaluates."""
    fitting = int(settings.loaded_key_memory) // max(1, _largest_keys(models, backend))
    return min(MOST_LOADED_KEYS, max(1, fitting))


def _largest_keys(models: Models, backend: str) -> int:
    return max((model.loaded_key_bytes(backend) for model in models), default=0)


def require_memory(prediction: Prediction, limit: int | None) -> None:
    """Raise SettingError, with the numbers, when more is predicted than there may or can be."""
    most = available() if limit is None else limit
    if prediction.total > most:
        sizes = asdict(prediction).items()
        parts = ", ".join(f"{name.replace('_', ' ')} {size / _GIB:.2f}{_LEVERS[name]}" for name, size in sizes)
        raise SettingError(
            f"the service may take {prediction.total} bytes of memory, in GiB {prediction.total / _GIB:.2f} ({parts}), "
            f"and there are {most / _GIB:.2f} ({most} bytes): lower one of these, serve fewer models, or raise "
            "HEINFER_SERVER_MEMORY"
        )


def available() -> int:
    """Bytes of memory that this machine has, or that a unit of systemd, a container or another group may take."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min((physical, *memory_limits()))
