"""Cost tables from measurement: probes run level by level, in sweeps, and solved for the time of one operation each."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from statistics import median
from time import thread_time
from typing import Any, Protocol

from heinfer.circuit.ir import Circuit, Kind
from heinfer.circuit.typed import TypedCircuit
from heinfer.ckks.parameters import Parameters
from heinfer.costs.prediction import ROWS
from heinfer.costs.tables import HOISTED, OPERATIONS, CostTable
from heinfer.measurement.machine import describe_machine, today
from heinfer.measurement.probes import INPUTS, hoisted_probe, probes

SWEEPS = 3
"""Over all levels; enough for a table."""

_SCALE = 2.0**12  # the product of two fits level 0; times do not depend on values
_SECONDS_A_PROBE = 0.1
_MOST_RUNS = 20


class Bench(Protocol):
    """A backend in one ring, with evaluation keys for some rotation steps and for relinearization."""

    @property
    def backend(self) -> str: ...

    @property
    def parameters(self) -> Parameters: ...

    @property
    def steps(self) -> Sequence[int]: ...

    @property
    def hoists(self) -> bool:
        """Whether it shares digits between rotations of one ciphertext."""

    def encrypt(self, count: int, level: int, scale: float) -> Sequence[Any]:
        """Ciphertexts to run programs on."""

    def encode(self, typed: TypedCircuit) -> Any:
        """The program of a circuit, with its constants encoded."""

    def run(self, program: Any, inputs: Sequence[Any]) -> None:
        """Evaluate a program as a server does."""


class Calibration:
    """Samples of a backend's operations at all levels of a ring.

    A sweep goes through the levels and runs the probes of a level in turn, so that what changes with time (the clock
    of the processor, what others do to its caches) touches all alike. Seconds are those for which this thread has the
    processor, without those that the scheduler gives to others. Of all samples of a probe the median counts.
    """

    def __init__(self, bench: Bench, clock: Callable[[], float] = thread_time) -> None:
        self._bench = bench
        self._clock = clock
        lowest, others = (_probes(bench, lowest=lowest) for lowest in (True, False))
        self._probes = [lowest, *[others] * bench.parameters.top_level]
        self._runs: dict[tuple[int, Kind | str], list[float]] = defaultdict(list)
        self._encodes: dict[int, list[float]] = defaultdict(list)

    @property
    def levels(self) -> int:
        """Number of levels that a sweep measures."""
        return len(self._probes)

    def sweep(self) -> Iterator[int]:
        """Measure every level once more; yields each when it is done."""
        for level in range(self.levels):
            self._measure(level)
            yield level

    def table(self) -> CostTable:
        """The table so far; after one sweep at least."""
        levels = [self._solve(level) for level in range(self.levels)]
        rows = {name: _growing([times[name] for times in levels]) for name in levels[0]}
        return CostTable(self._bench.backend, self._bench.parameters.ring_degree, rows, describe_machine(), today())

    def _measure(self, level: int) -> None:
        inputs = self._bench.encrypt(INPUTS, level, _SCALE)
        programs: dict[Kind | str, Any] = {}
        for kind, circuit in self._probes[level].items():
            typed = TypedCircuit(circuit, self._bench.parameters, level, _SCALE)
            started = self._clock()
            programs[kind] = self._bench.encode(typed)
            if circuit.constants:
                self._encodes[level].append((self._clock() - started) / len(circuit.constants))
        first = {kind: self._seconds(program, inputs) for kind, program in programs.items()}  # warms the caches
        runs = {
            kind: min(max(int(_SECONDS_A_PROBE / max(spent, 1e-6)), 1), _MOST_RUNS) for kind, spent in first.items()
        }
        for number in range(max(runs.values())):
            for kind in (k for k, n in runs.items() if number < n):
                self._runs[level, kind].append(self._seconds(programs[kind], inputs))

    def _seconds(self, program: Any, inputs: Sequence[Any]) -> float:
        started = self._clock()
        self._bench.run(program, inputs)
        return self._clock() - started

    def _solve(self, level: int) -> dict[str, float]:
        """Milliseconds of one operation of each row: a probe's time without the operations that are known already."""
        known: dict[Kind | str, float] = {}
        for kind, circuit in self._probes[level].items():
            counts = Counter[Kind | str](op.kind for op in circuit.ops)
            if kind == HOISTED:  # but for the first of them
                counts[HOISTED] = counts[Kind.ROTATE] - 1
                counts[Kind.ROTATE] = 1
            own = counts.pop(kind)
            others = sum(count * known[other] for other, count in counts.items())
            known[kind] = max(1000 * median(self._runs[level, kind]) - others, 0.0) / own
        rows = dict.fromkeys(OPERATIONS, 0.0)  # nothing can be rescaled at level 0
        rows |= {ROWS[kind]: spent for kind, spent in known.items() if isinstance(kind, Kind) and kind in ROWS}
        rows |= {HOISTED: known[HOISTED]} if HOISTED in known else {}
        rows["hma"] = known[Kind.MULTIPLY_PLAIN] + known[Kind.ADD]
        rows["encode"] = 1000 * median(self._encodes[level])
        return rows


def _probes(bench: Bench, *, lowest: bool) -> dict[Kind | str, Circuit]:
    slots, steps = bench.parameters.slots, bench.steps
    found: dict[Kind | str, Circuit] = dict(probes(slots, steps, lowest=lowest).items())
    if bench.hoists:
        found[HOISTED] = hoisted_probe(slots, steps)
    return found


def _growing(times: Sequence[float]) -> tuple[float, ...]:
    """Times that never fall with the level: noise only adds, so a level takes no longer than one above it took."""
    return tuple(accumulate(reversed(times), min))[::-1]
