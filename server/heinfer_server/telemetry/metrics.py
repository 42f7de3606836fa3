"""What an operator may watch: counters, gauges and histograms, for Prometheus.

They are served at an address of their own, because they tell of all tenants together.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import perf_counter
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, start_http_server

from heinfer.errors import EvaluationTimeoutError, SettingError, WorkerFailedError
from heinfer_server.telemetry.logs import log

_logger = logging.getLogger(__name__)

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)
_LAG_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)
_LAG_EVERY = 0.05
_LAGS_AN_UPDATE = 10


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
        self.retries = self._counter("evaluation_retries", "Evaluations that were tried once more")
        self.lag = Histogram(
            "heinfer_event_loop_lag_seconds",
            "How late the event loop comes to what is due",
            buckets=_LAG_SECONDS,
            registry=self.registry,
        )

        ProcessCollector(registry=self.registry)
        self._watched: list[tuple[Gauge, Callable[[], float]]] = []

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A gauge whose value is looked up in the event loop: Prometheus is served in another thread."""
        self._watched.append((Gauge(f"heinfer_{name}", text, registry=self.registry), value))

    def update(self) -> None:
        """Look up the values of gauges."""
        for gauge, value in self._watched:
            gauge.set(value())

    async def measure(self) -> None:
        """Keep gauges up to date, and measure the event loop's lag, for ever."""
        while True:
            self.update()
            for _ in range(_LAGS_AN_UPDATE):
                due = perf_counter() + _LAG_EVERY
                await asyncio.sleep(_LAG_EVERY)
                self.lag.observe(max(0.0, perf_counter() - due))

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"heinfer_{name}", text, labels, registry=self.registry)


class MetricsServer:
    """Serves metrics to Prometheus, in a thread; SettingError when its address is taken."""

    def __init__(self, metrics: Metrics, host: str, port: int) -> None:
        try:
            server, self._thread = start_http_server(port, host, metrics.registry)
        except OSError as error:
            raise SettingError(
                f"metrics cannot be served at {host}, port {port} ({error.strerror}): set HEINFER_SERVER_METRICS_PORT "
                "or HEINFER_SERVER_METRICS_HOST"
            ) from None
        self._server: WSGIServer = server
        self.port: int = server.server_port
        log(_logger, logging.INFO, "metrics served", host=host, port=self.port)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
