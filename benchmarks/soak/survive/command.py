"""The command: restarts and replacements under calls, and what came of it."""

from __future__ import annotations

import signal
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from statistics import median
from time import monotonic, sleep
from typing import Annotated

import numpy as np
import typer
from rich.progress import Progress

from benchmarks.soak.key_disk import KeyDisk
from benchmarks.soak.service import Service
from benchmarks.soak.survive.caller import WAYS, Task
from benchmarks.soak.survive.callers import Callers
from benchmarks.soak.survive.proxy import Proxy, proxied
from benchmarks.soak.survive.versions import NAME, two_versions
from benchmarks.support.options import Json
from benchmarks.support.records import Record, write_records
from heinfer.errors import WrongAnswerError
from heinfer.formats import bundle
from heinfer_server.admission.tenants import TenantFile

LIVES = ("1", "1 2", "2 1", "2", "2")
"""Versions that the service has between two restarts, the current one first; after the last it begins anew.

An odd number, so that each change comes with both kinds of end.
"""
ENDS = (signal.SIGTERM, signal.SIGKILL)

_DISK = 64 << 20
_STALL_SECONDS = 180.0
_FAILED = 1
_LOSSES = (
    "wrong",
    "mixed_up",
    "lost",
    "untyped_errors",
    "lost_keys",
    "leaked_processes",
    "files_left",
    "clients_failed",
)


@dataclass
class Restarts:
    """What there was of them.

    Attributes:
        times: by how the service was ended.
        slowest: the same, seconds from that to the next right answer.
        under_way: calls at each.
        changes: how often other versions were served.
    """

    times: Counter[str] = field(default_factory=Counter)
    slowest: dict[str, float] = field(default_factory=dict)
    under_way: list[int] = field(default_factory=list)
    changes: int = 0


@dataclass(frozen=True, eq=False)
class _Scene:
    """What there is: a service with its bundles for each of its lives, a proxy before it, and who calls.

    Attributes:
        digests: of the versions, the first one first.
        temporary: folder for the service's temporary files.
    """

    service: Service
    lives: Sequence[Sequence[Path]]
    digests: Sequence[str]
    proxy: Proxy
    callers: Sequence[Callers]
    temporary: Path

    def right(self) -> int:
        """Right answers so far."""
        return sum(each.tally.right for each in self.callers)

    def wrong(self) -> int:
        """Wrong ones."""
        return sum(each.tally.wrong for each in self.callers)

    def under_way(self) -> int:
        """Calls that have begun and not ended."""
        return sum(each.tally.under_way for each in self.callers)

    def errors(self) -> Counter[str]:
        """Typed ones, by code."""
        return sum((each.tally.errors for each in self.callers), Counter())


def survive(
    json: Json,
    predictions: Annotated[int, typer.Option(min=10, help="Right answers, at least.")] = 5000,
    restarts: Annotated[int, typer.Option(min=1, help="Ends of the service, by SIGTERM and kill -9 in turn.")] = 20,
    at_once: Annotated[int, typer.Option(min=4, help="Calls under way at the same time, of all clients.")] = 200,
) -> None:
    """Four clients call a service that is restarted and replaced by another version of its model, behind a proxy.

    Every answer is compared with the cleartext label of the version that it says it is by. Fails on a wrong answer, a
    call that does not end, an error that is none of heinfer's, a lost key, a process or a file left behind.
    """
    with tempfile.TemporaryDirectory() as name, _scene(Path(name), at_once) as scene:
        started = monotonic()
        for each in scene.callers:
            each.wait_until_ready()
        done = _restart(scene, predictions, restarts)
        for each in scene.callers:
            each.tell_to_end()
        failed = [each for each in scene.callers if not each.end()]
        seconds = round(monotonic() - started)
        scene.service.end(signal.SIGTERM)
        record = _record(scene, done) | {"clients_failed": len(failed), "at_once": at_once, "seconds": seconds}
        for each in failed:
            print(f"{each.way}: {each.log.read_text()}")
    write_records([record], json)
    if any(record[loss] for loss in _LOSSES):
        raise typer.Exit(_FAILED)


@contextmanager
def _scene(folder: Path, at_once: int) -> Iterator[_Scene]:
    versions, images = two_versions()
    truth = {version.digest: version.labels for version in versions}
    images_file = folder / "images.npy"
    np.save(images_file, images)
    paths = {str(number): folder / f"{number}.heinfer" for number, _ in enumerate(versions, 1)}
    for path, version in zip(paths.values(), versions, strict=True):
        bundle.save(version.bundle, path)
    lives = [[paths[number] for number in life.split()] for life in LIVES]
    tenants = TenantFile(folder / "tenants.json")
    api_keys = {way: tenants.add(way) for way in WAYS}
    with ExitStack() as stack:
        disk = stack.enter_context(KeyDisk(folder / "disk", _DISK))
        service = Service(folder, disk, lives[0], folder / "tenants.json")
        stack.callback(service.close)
        service.start()
        proxy = stack.enter_context(proxied(service.port, folder / "proxy"))
        callers = []
        for way, api_key in api_keys.items():
            keys = str(folder / f"{way}.keys")
            task = Task(proxy.url, NAME, api_key, keys, str(images_file), at_once // len(WAYS))
            callers.append(Callers(way, task, truth, folder / f"{way}.log"))
            stack.callback(callers[-1].close)
        yield _Scene(service, lives, list(truth), proxy, callers, folder / "tmp")


def _restart(scene: _Scene, predictions: int, restarts: int) -> Restarts:
    """End and start the service, spread over the predictions."""
    done = Restarts()
    served, coming = scene.lives[0], cycle((*scene.lives[1:], scene.lives[0]))
    with Progress(transient=True) as progress:
        task = progress.add_task("", total=predictions)

        def wait_for(right: int) -> None:
            seen, moved = -1, monotonic()
            while (now := scene.right()) < right:
                if now > seen:
                    seen, moved = now, monotonic()
                if monotonic() - moved > _STALL_SECONDS:
                    raise RuntimeError(f"no right answer for {_STALL_SECONDS:g} seconds: {dict(scene.errors())}")
                for each in scene.callers:
                    each.require_alive()
                words = f"{done.times.total()} of {restarts} restarts, {scene.wrong()} wrong"
                progress.update(task, completed=now, description=f"{words}, {scene.errors().total()} errors")
                sleep(0.05)

        for number, how in zip(range(restarts), cycle(ENDS), strict=False):
            wait_for(predictions * (number + 1) // (restarts + 1))
            done.under_way.append(scene.under_way())
            began = monotonic()
            scene.service.end(how)
            last, served = served, next(coming)
            done.changes += last != served
            scene.service.serve(served)
            scene.service.start()
            done.times[how.name] += 1
            wait_for(scene.right() + 1)
            done.slowest[how.name] = max(done.slowest.get(how.name, 0.0), round(monotonic() - began, 2))
        wait_for(predictions)
    return done


def _record(scene: _Scene, done: Restarts) -> Record:
    tallies = [each.tally for each in scene.callers]
    by_version: Counter[str] = sum((tally.by_version for tally in tallies), Counter())
    under_way = {"median": median(done.under_way), "min": min(done.under_way), "max": max(done.under_way)}
    return {
        "benchmark": "survive",
        "right": scene.right(),
        "wrong": scene.wrong(),
        "mixed_up": scene.errors()[WrongAnswerError.code],
        "lost": scene.under_way(),
        "right_by_client": {each.way: each.tally.right for each in scene.callers},
        "right_by_version": {str(number): by_version[digest] for number, digest in enumerate(scene.digests, 1)},
        "typed_errors": dict(scene.errors()),
        "untyped_errors": sum(tally.untyped.total() for tally in tallies),
        "restarts": dict(done.times),
        "slowest_recovery_seconds": done.slowest,
        "changes_of_versions": done.changes,
        "under_way_at_restarts": under_way,
        "proxy": scene.proxy.kind,
        "answered_by_proxy": dict(scene.proxy.answers()),
        "registrations": scene.service.registrations(),
        "lost_keys": scene.service.codes()["unknown-keys"],
        "leaked_processes": scene.service.leaked,
        "files_left": sum(1 for _ in scene.temporary.iterdir()),
    }
