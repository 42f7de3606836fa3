"""neighbour: evaluations natively on one thread and two, beside a process that keeps one processor busy."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from time import monotonic, perf_counter, process_time, sleep
from typing import Annotated

import typer

from benchmarks.support.options import Json
from benchmarks.support.records import Record, head, known_records, save_records, spread, write_table
from heinfer.backends.native import NativeOptions, NativeProgram
from heinfer.formats import bundle
from heinfer.measurement.native import NativeBench
from heinfer.zoo import bundle_path

NETWORKS = "mnist-ffconv", "cifar-fast"
BESIDE = "nothing", "a process of the same session", "a process of another session"
"""Linux shares processors among sessions (sched(7), autogroup) or containers first, and in them among threads."""
THREADS = 1, 2
SECONDS = 0.4
"""That a sample lasts, at least: the system counts the time of processes in hundredths."""
QUIET = 0.1
"""Processors that others may use meanwhile."""

_SHOWN = "network", "beside", "threads", "samples", "eval_seconds", "times_one_thread", "processors", "others"


@dataclass
class _Case:
    """Evaluations of one kind; a sample is of several, one after the other.

    Attributes:
        wall: seconds of an evaluation, of each sample.
        processors: that they used.
        others: that all but this process and its neighbour used.
    """

    beside: str
    threads: int
    program: NativeProgram
    wall: list[float] = field(default_factory=list)
    processors: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)


def neighbour(
    json: Json,
    networks: Annotated[
        list[str] | None, typer.Option("--network", help="Others stay.", show_default=", ".join(NETWORKS))
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Of each case.")] = 15,
    minutes: Annotated[float, typer.Option(help="Until samples count in which others worked as well.")] = 10,
) -> None:
    """Evaluate on one thread and two, in turn, beside nothing and beside a process that is always busy.

    A sample in which others worked is taken anew, for some minutes.
    """
    records: dict[str, list[Record]] = {}
    for record in known_records(json):
        records.setdefault(str(record["network"]), []).append(record)
    for name in networks or NETWORKS:
        records[name] = _records(name, samples, minutes)
        save_records([record for name in sorted(records) for record in records[name]], json)
    write_table([record for name in sorted(records) for record in records[name]], _SHOWN, json)


def _records(name: str, samples: int, minutes: float) -> list[Record]:
    model = bundle.load(bundle_path(name))
    typed = model.typed
    bench = NativeBench(typed.parameters, model.circuit.steps())
    inputs = bench.encrypt(typed.circuit.inputs, typed.input_level, typed.input_scale)
    programs = {threads: NativeProgram(typed, bench.ring, NativeOptions(threads)) for threads in THREADS}
    cases = [_Case(beside, threads, programs[threads]) for beside in BESIDE for threads in THREADS]
    for program in programs.values():
        program.run(inputs, bench.keys)  # fills the caches
    end = monotonic() + 60 * minutes
    while waiting := [case for case in cases if len(case.wall) < samples]:
        for case in waiting:
            with _busy(case.beside) as pid:
                wall, processors, others = _sample(partial(case.program.run, inputs, bench.keys), pid)
            if others < QUIET or monotonic() > end:
                case.wall.append(wall)
                case.processors.append(processors)
                case.others.append(others)
    alone = {case.beside: median(case.wall) for case in cases if case.threads == 1}
    return [
        head("neighbour", network=name, backend="native", threads=case.threads, sessions_share=_sessions_share())
        | {
            "beside": case.beside,
            "samples": len(case.wall),
            "eval_seconds": spread(case.wall),
            "times_one_thread": round(median(case.wall) / alone[case.beside], 2),
            "times_one_thread_beside_nothing": round(median(case.wall) / alone["nothing"], 2),
            "processors": round(median(case.processors), 2),
            "others": round(median(case.others), 2),
        }
        for case in cases
    ]


@contextmanager
def _busy(beside: str) -> Iterator[int | None]:
    """A process that computes meanwhile."""
    if beside == "nothing":
        yield None
        return
    command = [sys.executable, "-c", "while True: pass"]
    with subprocess.Popen(command, start_new_session=beside == BESIDE[2]) as process:
        try:
            sleep(0.1)  # until it has begun
            yield process.pid
        finally:
            process.kill()


def _sample(run: Callable[[], object], pid: int | None) -> tuple[float, float, float]:
    """Seconds of an evaluation, processors that it used, and that all but it and its neighbour used."""
    begun, used, others = perf_counter(), process_time(), _seconds_of_others(pid)
    count = 0
    while perf_counter() - begun < SECONDS:
        run()
        count += 1
    took, used, others = perf_counter() - begun, process_time() - used, _seconds_of_others(pid) - others
    return took / count, used / took, (others - used) / took


def _seconds_of_others(pid: int | None) -> float:
    """Processor time of all processes so far, but for one; see proc_stat(5) and proc_pid_stat(5)."""
    user, nice, system, _idle, _iowait, irq, softirq, *_ = map(int, _fields("/proc/stat")[1:])
    ticks = user + nice + system + irq + softirq
    if pid is not None:
        ticks -= sum(map(int, _fields(f"/proc/{pid}/stat")[13:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _fields(path: str) -> list[str]:
    return Path(path).read_text().partition("\n")[0].split()


def _sessions_share() -> str:
    """Whether each session has its share of the processors, or each thread."""
    path = Path("/proc/sys/kernel/sched_autogroup_enabled")
    return "yes" if path.exists() and path.read_text().strip() == "1" else "no"
