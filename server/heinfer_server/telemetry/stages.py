"""How long the stages of an inference take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from heinfer_server.telemetry.metrics import Metrics


class Stages:
    """Seconds of the stages of one request, for its sender and for the metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._seconds: dict[str, float] = {}

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Time what happens inside, if it comes to its end."""
        started = perf_counter()
        yield
        self.add(name, perf_counter() - started)

    def add(self, name: str, seconds: float) -> None:
        """A stage that was timed elsewhere."""
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds
        self._metrics.stages.labels(name).observe(seconds)

    def header(self) -> str:
        """The Server-Timing header: milliseconds."""
        return ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in self._seconds.items())
