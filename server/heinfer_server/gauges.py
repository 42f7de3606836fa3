"""What of a running service has a gauge, or is asked of the system when Prometheus asks."""

from __future__ import annotations

from importlib.metadata import version
from math import inf

from heinfer_server.memory.total import available
from heinfer_server.service import Service
from heinfer_server.telemetry.machine import WorkerMemory, disk_bytes
from heinfer_server.telemetry.metrics import Metrics


def watch(metrics: Metrics, service: Service) -> None:
    """What of a service has a gauge."""
    for name, text, value in (
        (
            "evaluations_inside",
            "Inferences whose body comes, that wait, or are under way",
            lambda: service.evaluations.inside,
        ),
        ("evaluations_waiting", "Evaluations that wait for a worker", lambda: service.workers.waiting),
        ("workers_ready", "Workers that can evaluate", lambda: service.workers.ready),
        ("workers", "Workers that there are to be", lambda: service.settings.workers),
        ("workers_busy", "Workers that have something to do", lambda: service.workers.busy),
        ("stored_keys", "Sets of evaluation keys that are kept", lambda: len(service.keys)),
        ("stored_key_bytes", "Bytes of them", lambda: service.keys.total_bytes),
        (
            "key_expiry_suspended",
            "1 while no keys expire because the clock has jumped, else 0",
            lambda: service.keys.is_expiry_suspended,
        ),
        ("jobs", "Jobs that are not over", lambda: service.jobs.under_way),
        ("streams", "Streams of a job's events that are open", lambda: service.streams.inside),
        ("uploads", "Uploads of keys that are under way", lambda: len(service.uploads)),
        (
            "predicted_memory_bytes",
            "The most memory that all processes take, as predicted",
            lambda: service.memory.total,
        ),
    ):
        metrics.watch(name, text, value)
    _inform(metrics, service)
    _look_up(metrics, service)


def _inform(metrics: Metrics, service: Service) -> None:
    """Tell of what does not change."""
    build = {"version": version("heinfer"), "backend": service.backend}
    metrics.inform("build_info", "Always 1: the version of heinfer, and what evaluates", build)
    models = [
        {
            "model": model.name,
            "version": model.bundle.manifest.model_version,
            "manifest": model.digest,
            "current": str(model is service.models.current(model.name)).lower(),
        }
        for model in service.models
    ]
    metrics.inform("model_info", "Always 1: each version of a model, with its manifest's digest", *models)
    for model in service.models:
        metrics.name(model.digest, model.name, model.bundle.manifest.model_version)


def _look_up(metrics: Metrics, service: Service) -> None:
    """Ask the system, whenever Prometheus asks."""
    metrics.look_up(
        "memory_limit_bytes",
        "The most memory that all processes may take: MEMORY, or what there is if that is less",
        lambda: min(available(), float(service.settings.memory or inf)),
    )
    metrics.collect(WorkerMemory(lambda: service.workers.pids))
    folder = service.settings.key_folder
    if folder is not None:
        metrics.look_up("key_disk_free_bytes", "Room on the disk of a KEY_FOLDER", lambda: disk_bytes(folder)[0])
        metrics.look_up("key_disk_bytes", "Size of that disk", lambda: disk_bytes(folder)[1])
