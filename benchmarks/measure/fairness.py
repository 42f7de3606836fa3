"""fairness: what a tenant with one set of keys waits for an answer while another keeps the service busy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import cycle
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Annotated, Any

import httpx
import typer

from benchmarks.support.options import Backend, Json, Network
from benchmarks.support.records import Record, head, write_records
from benchmarks.support.subject import Sender
from heinfer.backends import choose_backend
from heinfer.formats import bundle
from heinfer.formats.bundle import Bundle
from heinfer_cli.local_server import local_server
from heinfer_cli.models import bundle_file
from heinfer_server.admission.tenants import TenantFile
from heinfer_server.models import ServedModel


def fairness(
    json: Json,
    network: Network = "mnist-ffconv",
    backend: Backend = None,
    workers: Annotated[int, typer.Option(min=1)] = 2,
    sets: Annotated[int, typer.Option(min=2, help="Of keys, which the other tenant uses in rotation.")] = 24,
    room: Annotated[int, typer.Option(min=1, help="Sets that a worker keeps loaded.")] = 8,
    at_once: Annotated[int, typer.Option(min=1, help="Requests of the other tenant.")] = 8,
    requests: Annotated[int, typer.Option(min=2, help="Of the tenant with one set, one after the other.")] = 40,
) -> None:
    """Time the requests of a tenant alone, beside one that uses one set of keys as well, and beside one with many."""
    path, chosen = bundle_file(network), choose_backend(backend)
    model = bundle.load(path)
    common = head("fairness", network=model.manifest.name, backend=chosen, workers=workers)
    common |= {"room": room, "at_once": at_once}
    with TemporaryDirectory() as folder:
        tenants = TenantFile(Path(folder) / "tenants.json")
        api_keys = [tenants.add(name) for name in ("one", "other")]
        settings: dict[str, Any] = {
            "tenants": Path(folder) / "tenants.json",
            "no_auth": False,
            "tenant_requests": 1_000_000,
            "tenant_bytes": 1 << 50,
            "key_memory": 2 << 30,
            "loaded_key_memory": room * ServedModel.of(model).loaded_key_bytes(chosen),
        }
        with local_server(path, chosen, workers=workers, **settings) as url:
            records = asyncio.run(_measure(url, model, api_keys, sets, at_once, requests))
    write_records([common | record for record in records], json)


class _Tenant:
    """One that sends an image, encrypted before, under any of its sets of keys."""

    def __init__(self, http: httpx.AsyncClient, model: Bundle, sets: int) -> None:
        self._http = http
        self._senders = [Sender(model) for _ in range(sets)]
        self.answers = 0

    async def register(self) -> None:
        for sender in self._senders:
            await sender.register(self._http)

    async def ask(self, number: int) -> float:
        """Seconds until an answer to a request under a set of keys."""
        started = perf_counter()
        await self._senders[number % len(self._senders)].ask(self._http)
        self.answers += 1
        return perf_counter() - started

    @asynccontextmanager
    async def busy(self, sets: int, at_once: int) -> AsyncIterator[None]:
        """Meanwhile so many requests of it wait or are under way, under so many of its sets in rotation."""
        numbers = cycle(range(sets))

        async def keep_asking() -> None:
            for number in numbers:
                await self.ask(number)

        asking = [asyncio.create_task(keep_asking()) for _ in range(at_once)]
        try:
            yield
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)


async def _measure(
    url: str, model: Bundle, api_keys: Sequence[str], sets: int, at_once: int, requests: int
) -> list[Record]:
    clients = [
        httpx.AsyncClient(base_url=url, timeout=120, headers={"Authorization": f"Bearer {key}"}) for key in api_keys
    ]
    one, other = (_Tenant(http, model, number) for http, number in zip(clients, (1, sets), strict=True))
    for tenant in (one, other):
        await tenant.register()
    records: list[Record] = []
    for used in (0, 1, sets):
        async with other.busy(used, at_once if used else 0):
            for _ in range(4):
                await one.ask(0)
            other.answers, started = 0, perf_counter()
            took = [await one.ask(0) for _ in range(requests)]
            seconds = perf_counter() - started
        cuts = quantiles(took, n=20, method="inclusive")
        answered = {"p50": cuts[9], "p95": cuts[18]}
        records.append({"other_sets": used, "answered_seconds": answered, "other_per_second": other.answers / seconds})
    for client in clients:
        await client.aclose()
    return records
