"""The command: load and faults for some minutes, and what came of it."""

from __future__ import annotations

import random
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from statistics import median
from time import monotonic, sleep
from typing import Annotated

import typer
from rich.progress import Progress

from benchmarks.soak.callers import Answers, Caller, Newcomers, Steady, Tally
from benchmarks.soak.faults import FAULTS, LAST, Scene, inputs_of
from benchmarks.soak.hostile import Place, put
from benchmarks.soak.key_disk import KeyDisk
from benchmarks.soak.service import Service
from benchmarks.support.options import Json
from benchmarks.support.records import Record, write_records
from heinfer.formats import bundle
from heinfer.zoo import bundle_path
from heinfer_server.admission.tenants import TenantFile

MODELS = ("mnist-ffconv", "lola-mnist")
_DISK = 256 << 20
_RECOVERY_SECONDS = 60.0
_ENDS_FROM = 0.8
"""Share of the time after which the service itself is ended, so that its memory is watched for long before."""
_FAILED = 1

Fault = Callable[[Scene], str]


@dataclass
class Outcomes:
    """What came of every kind of fault."""

    count: Counter[str] = field(default_factory=Counter)
    unlike: Counter[str] = field(default_factory=Counter)
    unrecovered: Counter[str] = field(default_factory=Counter)
    slowest: dict[str, float] = field(default_factory=dict)

    def add(self, kind: str, outcome: str, recovery: float | None) -> None:
        self.count[kind] += 1
        if outcome != "done":
            self.unlike[f"{kind}: {outcome}"] += 1
        if recovery is None:
            self.unrecovered[kind] += 1
        else:
            self.slowest[kind] = max(self.slowest.get(kind, 0), round(recovery, 2))


@dataclass
class Memory:
    """Megabytes while the service lived in one piece: of the process that speaks HTTP, and of all together."""

    main: list[float] = field(default_factory=list)
    total: list[float] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)

    def look(self, service: Service) -> None:
        self.main.append(service.resident(service.pid) / 1e6)
        self.total.append(sum(map(service.resident, service.processes())) / 1e6)
        self.descriptors.append(service.descriptors())

    def record(self) -> Record:
        quarter = max(1, len(self.main) // 4)
        early, late = (median(self.main[i : i + quarter]) for i in (quarter, len(self.main) - quarter))
        return {
            "main_mb_second_quarter": round(early, 1),
            "main_mb_last_quarter": round(late, 1),
            "total_mb_most": round(max(self.total), 1),
            "descriptors_second_quarter": int(median(self.descriptors[quarter : 2 * quarter])),
            "descriptors_last_quarter": int(median(self.descriptors[-quarter:])),
        }


def soak(
    json: Json,
    minutes: Annotated[float, typer.Option(min=0.5, help="Longer if a fault had no turn yet.")] = 30.0,
    pause: Annotated[float, typer.Option(min=1, help="Seconds between faults.")] = 15.0,
    seed: Annotated[int, typer.Option(help="Of the order and the places of faults.")] = 0,
) -> None:
    """Load and faults: workers killed, stopped and taken over, slow, vanishing and hostile clients, a full disk.

    Also a full metrics port, SIGHUP, clocks that jump, restarts.

    After every fault a caller asks until it has an answer. Fails on a wrong answer, a lost key, a process left behind,
    or a fault that the service does not get over.
    """
    tally, outcomes, memory = Tally(), Outcomes(), Memory()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        disk = stack.enter_context(KeyDisk(folder / "disk", _DISK))
        tenants = TenantFile(folder / "tenants.json")
        bundles = [bundle_path(model) for model in MODELS]
        service = Service(folder, disk, bundles, folder / "tenants.json")
        models = [bundle.load(path) for path in bundles]
        service.load_code(put(_place(folder, disk, service, bundles[0], inputs_of(models[0]))))
        api_keys = {who: tenants.add(who) for who in ("ann", "bob", "cat", "probe", "newcomers")}
        answers = [Answers(model) for model in models]
        over = threading.Event()

        def caller(who: str, number: int, keys: Path | None) -> Caller:
            return Caller(service.url, answers[number], api_keys[who], keys, tally)

        chance = random.Random(seed)  # noqa: S311 - no secret
        service.start()
        probe = caller("probe", 0, folder / "probe")
        steady = [Steady(caller(w, i, folder / w), 0.2, over) for w, i in (("ann", 0), ("bob", 1), ("cat", 0))]
        newcomers = Newcomers(service.url, answers[1], api_keys["newcomers"], tally, 10, over)
        scene = Scene(service, disk, models[0], api_keys["probe"], lambda: caller("newcomers", 0, None), chance)
        probe.call()
        for thread in (*steady, newcomers):
            thread.start()
        _run(scene, probe, outcomes, memory, 60 * minutes, pause)
        over.set()
        for thread in (*steady, newcomers):
            thread.join(2 * _RECOVERY_SECONDS)
        service.end(signal.SIGTERM)
        leftovers = sum(1 for _ in (folder / "tmp").iterdir())
        codes = service.codes()
        registered = newcomers.registered
    lost = codes["unknown-keys"]
    write_records(
        [
            {
                "benchmark": "soak",
                "minutes": minutes,
                "right": tally.right,
                "wrong": tally.wrong,
                "precision_bits_min": round(tally.least_bits, 1),
                "errors_of_callers": dict(tally.errors),
                "errors_answered": dict(codes),
                "registrations_of_newcomers": registered,
                "faults": dict(outcomes.count),
                "faults_with_another_outcome": dict(outcomes.unlike),
                "faults_not_recovered": dict(outcomes.unrecovered),
                "slowest_recovery_seconds": outcomes.slowest,
                "lost_keys": lost,
                "leaked_processes": service.leaked,
                "files_left": leftovers,
                "has_full_disk": int(disk.is_own),
                **memory.record(),
            }
        ],
        json,
    )
    if tally.wrong or lost or service.leaked or leftovers or outcomes.unrecovered.total() or outcomes.unlike.total():
        raise typer.Exit(_FAILED)


def _place(folder: Path, disk: KeyDisk, service: Service, model: Path, inputs: bytes) -> Place:
    hostile = folder / "hostile"
    hostile.mkdir()
    return Place(
        folder=hostile,
        tenants=folder / "tenants.json",
        keys=disk.keys,
        constants=folder / "constants",
        bundle=model,
        port=service.port,
        metrics_port=service.metrics_port,
        abstract="\0heinfer-nobody",
        inputs=inputs,
    )


def _run(scene: Scene, probe: Caller, outcomes: Outcomes, memory: Memory, seconds: float, pause: float) -> None:
    started = monotonic()
    with Progress(transient=True) as progress:
        task = progress.add_task("soaking", total=seconds)
        for fault in _in_turn(seconds, scene.chance):
            outcomes.add(fault.__name__, fault(scene), probe.until_answered(_RECOVERY_SECONDS))
            until = monotonic() + pause
            while monotonic() < until:
                sleep(1)
                progress.update(task, completed=monotonic() - started)
                if fault not in LAST:
                    memory.look(scene.service)


def _in_turn(seconds: float, chance: random.Random) -> Iterator[Fault]:
    """Faults for most of the time, then ends of the service: each kind once, however slow the machine, and then again.

    Each kind as often as the others, in an order that changes.
    """
    started = monotonic()
    for kinds, over in ((FAULTS, _ENDS_FROM * seconds), (LAST, seconds)):
        rounds = chain.from_iterable(chance.sample(kinds, len(kinds)) for _ in count())
        for number, fault in enumerate(rounds):
            if number >= len(kinds) and monotonic() - started > over:
                break
            yield fault
