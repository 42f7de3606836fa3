"""What an operator may watch: counters, gauges and histograms, for Prometheus.

They are served at an address of their own, because they tell of all tenants together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.registry import Collector

from heinfer.errors import EvaluationTimeoutError, WorkerFailedError

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each counter, that nobody asks for

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)
_LAG_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)
_LAG_EVERY = 0.05
_LAGS_AN_UPDATE = 10

LEAST_SECONDS = 0.2
"""From one text of all metrics to the next, however many ask for it."""


class Metrics:
    """The metrics of one service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests", "Answers, by route and status", "method", "route", "status")
        self.errors = self._counter("errors", "Refusals and failures, by their code", "code")
        self.received = self._counter("received_bytes", "Bytes of request bodies")
        self.sent = self._counter("sent_bytes", "Bytes of answers' bodies")
        self.stages = Histogram(
            "heinfer_stage_seconds",
            "Time of an inference: body, check, wait for a worker, worker, in it keys and evaluation, and total",
            ["stage"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.key_loads = self._counter(
            "key_loads", "Evaluations whose keys a worker held loaded (hit), or had to load (miss)", "result"
        )
        self.worker_failures = self._counter("worker_failures", "Workers that died or ran out of time", "code")
        for kind in (WorkerFailedError, EvaluationTimeoutError):
            self.worker_failures.labels(kind.code)  # there before the first of them: an alert compares with what was
        self._evaluations = self._counter("evaluations", "Evaluations that came to a result", "model", "version")
        self.retries = self._counter("evaluation_retries", "Evaluations that were tried once more")
        self.lag = Histogram(
            "heinfer_event_loop_lag_seconds",
            "How late the event loop comes to what is due",
            buckets=_LAG_SECONDS,
            registry=self.registry,
        )

        ProcessCollector(registry=self.registry)
        self._names: dict[str, tuple[str, str]] = {}
        self._watched: list[tuple[Gauge, Callable[[], float]]] = []
        self._making = asyncio.Lock()
        self._text, self._begun = b"", float("-inf")

    def name(self, manifest: str, model: str, version: str) -> None:
        """Name the model whose evaluations are counted under the digest of its manifest."""
        self._names[manifest] = model, version
        self._evaluations.labels(model, version)

    def evaluated(self, manifest: str) -> None:
        """Count an evaluation that came to a result."""
        self._evaluations.labels(*self._names.get(manifest, ("", ""))).inc()

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A gauge whose value is looked up in the event loop: the text of all metrics is made in another thread."""
        self._watched.append((self._gauge(name, text), value))

    def look_up(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A gauge whose value is looked up in that other thread: the system, which may take its time, is asked."""
        self._gauge(name, text).set_function(value)

    def inform(self, name: str, text: str, *facts: dict[str, str]) -> None:
        """A gauge that is 1 for each of these sets of labels; all have the same names."""
        gauge = Gauge(f"heinfer_{name}", text, list(facts[0]) if facts else (), registry=self.registry)
        for labels in facts:
            gauge.labels(**labels).set(1)

    def collect(self, collector: Collector) -> None:
        """What a collector finds in that other thread."""
        self.registry.register(collector)

    def update(self) -> None:
        """Look up the values of gauges."""
        for gauge, value in self._watched:
            gauge.set(value())

    async def measure(self) -> None:
        """Bring gauges up to date, and measure the event loop's lag for a while: a round of what goes on for ever."""
        self.update()
        for _ in range(_LAGS_AN_UPDATE):
            due = perf_counter() + _LAG_EVERY
            await asyncio.sleep(_LAG_EVERY)
            self.lag.observe(max(0.0, perf_counter() - due))

    async def text(self) -> bytes:
        """All of them for Prometheus, as they are after the call; who calls meanwhile gets the same text."""
        came = perf_counter()
        async with self._making:
            if self._begun < came:
                await asyncio.sleep(self._begun + LEAST_SECONDS - perf_counter())
                self._begun = perf_counter()
                self._text = await asyncio.to_thread(generate_latest, self.registry)
            return self._text

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"heinfer_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"heinfer_{name}", text, registry=self.registry)
