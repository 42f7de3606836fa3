"""What the service holds while it runs, and its two long operations."""

from __future__ import annotations

import asyncio
import logging
from math import inf

from heinfer.backends import NativeOptions, choose_backend
from heinfer.errors import (
    BusyError,
    FormatError,
    FrameLengthError,
    ServiceUnavailableError,
    SettingError,
    UploadDigestError,
)
from heinfer_server.admission.access import REFRESH_SECONDS, Access
from heinfer_server.admission.concurrency import ConcurrencyLimit, WaitingLimit
from heinfer_server.errors import StorageError
from heinfer_server.evaluation.jobs import Jobs
from heinfer_server.evaluation.latency import Latency, expected_seconds
from heinfer_server.evaluation.pool import WorkerPool
from heinfer_server.evaluation.preparation import only_read, prepare
from heinfer_server.evaluation.tasks import Setup
from heinfer_server.evaluation.worker import Worker
from heinfer_server.evaluation.worker_setup import WorkerSetup
from heinfer_server.isolation.confinement import PARTS, Confinement, available_parts
from heinfer_server.keys.disk_storage import DiskStorage
from heinfer_server.keys.memory_storage import MemoryStorage
from heinfer_server.keys.storage import address
from heinfer_server.keys.store import KeyStore, StoreLimits
from heinfer_server.keys.uploads import Upload, Uploads
from heinfer_server.memory.of_models import model_options
from heinfer_server.memory.of_worker import largest_file, worker_bytes
from heinfer_server.memory.total import loaded_keys, predict, require_memory
from heinfer_server.models import KeySet, Models, ServedModel
from heinfer_server.settings import Settings
from heinfer_server.telemetry.logs import log
from heinfer_server.telemetry.metrics import Metrics
from heinfer_server.telemetry.stages import Stages

_logger = logging.getLogger(__name__)

HOUSEKEEPING_SECONDS = 30.0
REGISTRATIONS_AT_ONCE = 4
REGISTRATIONS_OF_A_TENANT = 2
"""Those of one tenant (without tenants nobody is told apart, and all may be anybody's)."""

REGISTRATION_SECONDS = 5.0
"""That one waits for its place, before it is refused: longer than a piece takes."""

EVALUATIONS_PER_WORKER = 32
"""Requests that may be under way or wait for each worker, so that their bodies have a bound."""

EVALUATIONS_PER_WORKER_AND_TENANT = 8
"""Those of them of one tenant (of one set of keys, without tenants), so that one alone does not fill the house."""

STREAMS_AT_ONCE = 256
STREAMS_OF_A_TENANT = 16
"""Streams of events that may be open: of one tenant (of one job, without tenants)."""


class Service:
    """Models, registered keys and workers.

    Args:
        worker: what makes a worker.

    Raises:
        SettingError: when one client's keys for a model exceed the memory for keys, the models that of a worker, or
            all of it what there is; or the backend is not installed.
    """

    def __init__(self, settings: Settings, models: Models, worker: type[Worker] = Worker) -> None:
        self.backend = choose_backend(None if settings.backend == "auto" else settings.backend)
        options = model_options(
            models, self.backend, NativeOptions(settings.threads, inf, settings.constants_folder), settings.model_memory
        )
        waiting = EVALUATIONS_PER_WORKER * settings.workers
        self.memory = predict(models, settings, self.backend, options, waiting, REGISTRATIONS_AT_ONCE)
        require_memory(self.memory, settings.memory)
        limits = _limits(settings)
        for model in models:
            _require_room(model, settings)
        self.settings = settings
        self.models = models
        storage = MemoryStorage() if settings.key_folder is None else DiskStorage(settings.key_folder)
        self.keys = KeyStore(limits, storage)
        self.uploads = Uploads(
            int(settings.key_memory), settings.upload_seconds, seconds_per_mib=settings.body_seconds_per_mib
        )
        self.access = Access(settings)
        self._purged: frozenset[str] = frozenset()
        self.is_ending = False
        self.jobs = Jobs(settings.job_seconds)
        self.latency = Latency({model.digest: expected_seconds(model, self.backend) for model in models})
        self.metrics = Metrics()
        share = REGISTRATIONS_OF_A_TENANT if self.access.requires_api_key else REGISTRATIONS_AT_ONCE
        self.registrations = WaitingLimit(REGISTRATIONS_AT_ONCE, share, REGISTRATION_SECONDS)
        self.evaluations = ConcurrencyLimit(waiting, EVALUATIONS_PER_WORKER_AND_TENANT * settings.workers)
        self.streams = ConcurrencyLimit(STREAMS_AT_ONCE, STREAMS_OF_A_TENANT)
        most_keys = loaded_keys(models, settings, self.backend)
        confinement = Confinement(
            memory=worker_bytes(models, self.backend, options, most_keys),
            threads=settings.threads,
            file_bytes=largest_file(models, self.backend),
            parts=_isolation(settings),
        )
        versions = tuple(models)
        self._preparation = Setup(versions, self.backend, options) if settings.constants_folder is not None else None
        self.setup = WorkerSetup(Setup(versions, self.backend, only_read(options), confinement))
        workers = [
            worker(self.setup, settings.evaluation_timeout, self.keys, most_keys) for _ in range(settings.workers)
        ]
        self.workers = WorkerPool(workers, self.metrics, self.latency)

    async def start(self) -> None:
        """Start all workers and wait until they have loaded the models; WorkerFailedError when one cannot."""
        if self._preparation is not None and self.backend == "native":
            await prepare(self._preparation)
        await self.workers.start()

    async def register(self, tenant: str, key_set: KeySet, body: bytes) -> str:
        """Check a frame of keys and keep it; returns the keys' id, raises what KeySet.check and KeyStore.add raise."""
        await asyncio.to_thread(key_set.check, body)
        key_id = await asyncio.to_thread(self.keys.add, tenant, key_set.digest, body)
        if tenant in self.access.removed:  # since the request was admitted: its purge may have come too early for these
            await self.purge()
            raise BusyError("what is kept of you is purged at this moment: try again")
        await self.workers.maintain()  # others may have had to go
        return key_id

    async def forget(self, tenant: str, key_id: str) -> None:
        """Forget keys, here and in the workers; UnknownKeysError when the tenant has none under the id."""
        await asyncio.to_thread(self.keys.remove, tenant, key_id)
        await self.workers.maintain()

    async def purge(self) -> None:
        """Forget all that removed tenants have left: keys, here and in the workers, uploads, and jobs."""
        removed = self.access.removed
        self.uploads.purge(removed)
        self.jobs.purge(removed)
        keys = await asyncio.to_thread(self.keys.purge, removed)
        self._purged = removed
        if keys:
            log(_logger, logging.INFO, "keys of removed tenants purged", keys=keys)
            await self.workers.maintain()

    async def follow_tenants(self) -> None:
        """A round of what goes on for ever: purge what removed tenants leave, also while nobody asks for anything."""
        await asyncio.sleep(REFRESH_SECONDS)
        self.access.refresh()
        if self.access.removed == self._purged:
            return
        try:
            await self.purge()
        except StorageError as error:
            log(_logger, logging.ERROR, "keys of removed tenants not purged", reason=str(error))
            await asyncio.sleep(HOUSEKEEPING_SECONDS)

    def begin_upload(self, tenant: str, key_set: KeySet, digest: str, size: int) -> tuple[str, Upload | None]:
        """Begin to take keys in pieces, or go on with it; None instead of an upload when the keys are there already.

        Raises:
            FrameLengthError: when the size is not that of keys of the set.
            BusyError: when too much is under way.
        """
        if size != key_set.length:
            raise FrameLengthError(f"the keys of this model have {key_set.length} bytes, not {size}")
        upload_id = address(tenant, key_set.digest, digest)
        if self.keys.has(tenant, upload_id):
            return upload_id, None
        return upload_id, self.uploads.open(upload_id, tenant, key_set, digest, size)

    async def finish_upload(self, tenant: str, upload_id: str) -> str:
        """Register the keys of an upload that is whole; returns their id.

        The upload is over when this is done, but for one that is incomplete or meets a service that cannot keep it now.

        Raises:
            UnknownUploadError, UploadIncompleteError, UploadDigestError: as Uploads and Upload do.
            Those of :meth:`register`.
        """
        if self.keys.has(tenant, upload_id):  # finished before, and the answer lost
            return upload_id
        upload = self.uploads.get(tenant, upload_id)
        try:
            key_id = await self.register(tenant, upload.key_set, await asyncio.to_thread(upload.whole))
        except (UploadDigestError, FormatError):
            self.uploads.drop(upload_id)
            raise
        except StorageError:  # its sender may try again, but a full disk shall not fill its tenant's places
            upload.is_refused = True
            raise
        self.uploads.drop(upload_id)
        return key_id

    async def keep_house(self) -> None:
        """A round of what goes on for ever: wait a while, forget what is over, and look after idle workers."""
        await asyncio.sleep(HOUSEKEEPING_SECONDS)
        try:
            self.jobs.evict_expired()
            await self.workers.maintain()
            await self.purge()  # what a request has left that was under way when its tenant was removed
            if await asyncio.to_thread(self.keys.evict_expired):
                await self.workers.maintain()
        except StorageError as error:
            log(_logger, logging.ERROR, "keys not tidied", reason=str(error))

    def holder(self, tenant: str, key_id: str) -> str:
        """Identity for the fair queue: the tenant, or the key id when the service runs without API keys."""
        return tenant if self.access.requires_api_key else key_id

    def require_service(self) -> None:
        """ServiceUnavailableError when the service is about to end and begins nothing any more."""
        if self.is_ending:
            raise ServiceUnavailableError("the service is about to end: ask again when it has been started anew")

    async def drain(self) -> None:
        """Begin nothing any more, and wait for jobs and for those who come for their results, as long as is set."""
        self.is_ending = True
        log(_logger, logging.INFO, "ending", jobs=self.jobs.under_way)
        await self.jobs.drain(self.settings.drain_seconds)

    async def check(self, model: ServedModel, body: bytes, stages: Stages) -> None:
        """Check a frame of inputs; raises what ServedModel.read_inputs does."""
        with stages.timed("check"):
            await asyncio.to_thread(model.read_inputs, body)


def _isolation(settings: Settings) -> frozenset[str]:
    """Parts of the isolation of workers that this kernel has; SettingError when one is missing that must be there."""
    there = available_parts()
    missing = "; ".join(f"{part} ({what})" for part, what in PARTS.items() if part not in there)
    if missing and settings.require_isolation:
        raise SettingError(
            f"workers cannot be isolated on this machine, which lacks: {missing}. Use a kernel or a container that has "
            "it, or serve without it: unset HEINFER_SERVER_REQUIRE_ISOLATION"
        )
    if missing:
        log(_logger, logging.WARNING, "worker isolation incomplete", missing=missing)
    return there


def _limits(settings: Settings) -> StoreLimits:
    capacity = settings.key_capacity
    quota = capacity if settings.key_quota is None else int(settings.key_quota)
    return StoreLimits(capacity, quota, settings.key_seconds, settings.longest_downtime)


def _require_room(model: ServedModel, settings: Settings) -> None:
    """Refuse a model whose keys could never be registered."""
    bounds = {"key_memory": settings.key_memory, "key_quota": settings.key_quota}  # pieces come to memory in any case
    if settings.key_folder is not None:
        bounds["key_disk"] = settings.key_disk
    for name, bound in bounds.items():
        if bound is not None and model.keys.length > bound:
            raise SettingError(
                f"one client's keys for {model.title} take {model.keys.length} bytes, and {name} is {int(bound)}: "
                f"raise HEINFER_SERVER_{name.upper()}"
            )
