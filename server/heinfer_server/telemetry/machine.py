"""What the system says of the memory of processes and of disks. To be asked outside of the event loop."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from math import nan
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_PAGE = os.sysconf("SC_PAGE_SIZE")


class WorkerMemory(Collector):
    """Resident memory of worker processes.

    Pages of files are told apart: encoded weights that workers share would else count once for each of them.

    Args:
        pids: of the workers, in their order; None for one that is not there.
    """

    def __init__(self, pids: Callable[[], Sequence[int | None]]) -> None:
        self._pids = pids

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(
            "heinfer_worker_resident_bytes",
            "Memory of each worker: its own, and pages of files and others that processes may share",
            labels=["worker", "kind"],
        )
        for number, pid in enumerate(self._pids()):
            own, shared = (0, 0) if pid is None else resident_bytes(pid)
            family.add_metric([str(number), "own"], own)
            family.add_metric([str(number), "shared"], shared)
        return [family]


def resident_bytes(pid: int) -> tuple[int, int]:
    """Bytes of a process in memory: its own, and those that it may share with others; none when it is over."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()
    except OSError:
        return 0, 0
    resident, shared = int(pages[1]), int(pages[2])
    return (resident - shared) * _PAGE, shared * _PAGE


def disk_bytes(folder: Path) -> tuple[float, float]:
    """Bytes that an ordinary user may still write where a folder is, and those of its disk; NaN when nobody can say."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return nan, nan
    return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
