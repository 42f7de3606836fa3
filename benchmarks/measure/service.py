"""service: real HTTP on loopback. Throughput beside the evaluator alone, latency by stage, one call end to end."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Sequence
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from statistics import quantiles
from time import perf_counter
from typing import Annotated, Any

import httpx
import typer

from benchmarks.support.evaluating import Worker
from benchmarks.support.options import Backend, Json, Network
from benchmarks.support.ports import free_port
from benchmarks.support.records import Record, head, spread, write_records
from benchmarks.support.samples import image_for
from benchmarks.support.subject import Sender
from heinfer.backends import NativeOptions, choose_backend
from heinfer.formats import bundle
from heinfer.formats.bundle import Bundle
from heinfer_cli.local_server import local_server
from heinfer_cli.models import bundle_file
from heinfer_client import Client

STAGES = ("body", "check", "wait", "worker", "keys", "evaluation", "total")
ROUNDS = 3
"""Of evaluator and service in turn: machines are noisy, and change."""


def service(
    json: Json,
    network: Network = "mnist-ffconv",
    backend: Backend = None,
    workers: Annotated[int, typer.Option(min=1, help="Leave a core to the service and the clients.")] = 1,
    clients: Annotated[int, typer.Option(min=1, help="At once, each with keys of its own.")] = 8,
    requests: Annotated[int, typer.Option(min=8, help="In each of three rounds.")] = 400,
    calls: Annotated[int, typer.Option(min=2, help="Of the client, one after the other.")] = 50,
) -> None:
    """Time requests over HTTP: many clients at once beside the evaluator alone, then one call stage by stage."""
    path, chosen = bundle_file(network), choose_backend(backend)
    model = bundle.load(path)
    common = head("service", network=model.manifest.name, backend=chosen, workers=workers)
    senders = [Sender(model) for _ in range(clients)]
    port = free_port()
    with local_server(path, chosen, workers=workers, metrics_port=port) as url:
        throughput = _throughput(url, model, senders, chosen, workers, requests)
        throughput["event_loop_lag_p99_at_most_seconds"] = _lag(port)
        call = _calls(url, model, calls)
    write_records([common | {"clients": clients} | throughput, common | {"clients": 1} | call], json)


# Many at once ---------------------------------------------------------------------------------


def _throughput(
    url: str, model: Bundle, senders: Sequence[Sender], backend: str, workers: int, requests: int
) -> Record:
    asyncio.run(_register(url, senders))
    asyncio.run(_send(url, senders, 4 * len(senders) * workers))  # every worker loads every key
    alone, served, headers, took = [], [], [], []
    for _ in range(ROUNDS):
        alone.append(_evaluator_alone(model, senders[0], backend, workers, requests // workers))
        started = perf_counter()
        answers = asyncio.run(_send(url, senders, requests))
        served.append(requests / (perf_counter() - started))
        headers += [header for header, _ in answers]
        took += [seconds for _, seconds in answers]
    shares = [a / b for a, b in zip(served, alone, strict=True)]
    stages = _by_stage(headers) | {"answered": took}
    return {
        "evaluator_alone_per_second": spread(alone),
        "served_per_second": spread(served),
        "share": spread(shares),
        **{f"{name}_seconds": _percentiles(values) for name, values in stages.items()},
    }


async def _register(url: str, senders: Sequence[Sender]) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        for sender in senders:
            await sender.register(http)


async def _send(url: str, senders: Sequence[Sender], requests: int) -> list[tuple[str, float]]:
    """Server-Timing and seconds of every request; each client sends its next one when it has its answer."""
    answers: list[tuple[str, float]] = []
    left = iter(range(requests))

    async def one_after_the_other(http: httpx.AsyncClient, sender: Sender) -> None:
        for _ in left:
            started = perf_counter()
            answer = await sender.ask(http)
            answers.append((answer.headers["server-timing"], perf_counter() - started))

    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        await asyncio.gather(*(one_after_the_other(http, sender) for sender in senders))
    return answers


def _evaluator_alone(model: Bundle, sender: Sender, backend: str, processes: int, number: int) -> float:
    """Frames in to frames out a second, in as many processes as there are workers and with nothing beside them."""
    context = get_context("spawn")
    begin, end = context.Barrier(processes + 1), context.Barrier(processes + 1)
    running = [
        context.Process(target=_evaluate, args=(model, sender, backend, number, begin, end)) for _ in range(processes)
    ]
    for process in running:
        process.start()
    begin.wait(120)
    started = perf_counter()
    end.wait(600)
    seconds = perf_counter() - started
    for process in running:
        process.join(60)
    return processes * number / seconds


def _evaluate(model: Bundle, sender: Sender, backend: str, number: int, begin: Barrier, end: Barrier) -> None:
    worker = Worker(model, backend, NativeOptions())
    for turn in range(number + 2):
        if turn == 2:
            begin.wait(120)
        worker.evaluate(sender.inputs, None if turn else sender.keys)
    end.wait(600)


# One call -------------------------------------------------------------------------------------


class _Heard(httpx.BaseTransport):
    """Keeps the Server-Timing of the last answer."""

    def __init__(self) -> None:
        self._inner = httpx.HTTPTransport()
        self.timing = ""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = self._inner.handle_request(request)
        self.timing = answer.headers.get("server-timing", "")
        return answer


def _calls(url: str, model: Bundle, number: int) -> Record:
    """Seconds of each stage of encrypt_and_predict, which sum up to the whole call."""
    image, heard = image_for(model.manifest), _Heard()
    found: dict[str, list[float]] = defaultdict(list)
    with Client(url, model=model.manifest.name, transport=heard, progress=False) as client:
        client.encrypt_and_predict(image)
        codec = client._session.codec  # its two halves are timed inside the call
        clock = _Clock(codec)
        for _ in range(number):
            started = perf_counter()
            client.encrypt_and_predict(image)
            whole = perf_counter() - started
            server = {name: values[0] for name, values in _by_stage([heard.timing]).items()}
            stages = {
                "pack and encrypt": clock.seconds["encrypt"],
                "upload": server["body"],
                "check": server["check"],
                "wait": server["wait"],
                "worker beside the evaluation": server["worker"] - server["evaluation"],
                "evaluation": server["evaluation"],
                "decrypt": clock.seconds["decrypt"],
            }
            stages["HTTP and the rest"] = whole - sum(stages.values())
            stages |= {"whole": whole, "beyond the evaluation": whole - stages["evaluation"]}
            for name, seconds in stages.items():
                found[name].append(seconds)
    return {name: spread(values) for name, values in found.items()}


class _Clock:
    """Times a codec's encryption and decryption."""

    def __init__(self, codec: Any) -> None:
        self.seconds: dict[str, float] = {}
        for name in ("encrypt", "decrypt"):
            setattr(codec, name, self._timed(name, getattr(codec, name)))

    def _timed(self, name: str, function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            started = perf_counter()
            result = function(*arguments)
            self.seconds[name] = perf_counter() - started
            return result

        return call


# Numbers --------------------------------------------------------------------------------------


def _by_stage(headers: Sequence[str]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in STAGES}
    for header in headers:
        for name, milliseconds in re.findall(r"(\w+);dur=([0-9.]+)", header):
            found[name].append(float(milliseconds) / 1000)
    return found


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    cuts = quantiles(values, n=100, method="inclusive")
    return {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98]}


def _lag(port: int) -> float:
    """The bucket of the service's own histogram below which 99 % of its event loop's lags are."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
    buckets = re.findall(r'^heinfer_event_loop_lag_seconds_bucket\{le="([^"]+)"\} (\S+)', text, re.M)
    whole = float(buckets[-1][1])
    return next(float(bound) for bound, count in buckets if float(count) >= 0.99 * whole)
