"""How fast the native kernels and the memory are: what a lower bound of a network's time is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from time import thread_time

import numpy as np

from heinfer.backends.native import NativeKeys, NativeProgram, NativeRing
from heinfer.backends.native.work import Work
from heinfer.circuit.ir import Circuit, Kind, Op
from heinfer.circuit.typed import TypedCircuit
from heinfer.ckks.parameters import Parameters

ROUNDS = 200
STREAMED_BYTES = 1 << 28
"""More than a cache holds."""

_TERMS = 8
_VALUES = 4  # ciphertexts of one row: they and 16 constants of one row fit the second cache up to N = 16384


@dataclass(frozen=True)
class KernelSpeed:
    """Medians of processor time, one thread: microseconds for a row, and bytes a second read from memory."""

    forward_microseconds: float
    inverse_microseconds: float
    product_microseconds: float
    bytes_a_second: float

    def record(self) -> dict[str, float]:
        """As keys of a record."""
        return {name: float(f"{value:.4g}") for name, value in asdict(self).items()}

    def seconds(self, work: Work) -> float:
        """Of the arithmetic alone, its words in the nearest caches."""
        return 1e-6 * (
            work.forward * self.forward_microseconds
            + work.inverse * self.inverse_microseconds
            + work.products * self.product_microseconds
        )


def measure_kernels(parameters: Parameters) -> KernelSpeed:
    """Time rows of both transforms and of multiply-adds, interleaved, and a read of much memory."""
    ring = NativeRing.secure(parameters)
    words = np.random.default_rng(0).integers(0, parameters.data_primes[0], (3, parameters.ring_degree), np.uint32)
    calls: dict[str, Callable[[], object]] = {}
    for rows in (1, 3):
        calls[f"forward {rows}"] = partial(ring.handle.forward, words[:rows], [0] * rows)
        calls[f"inverse {rows}"] = partial(ring.handle.inverse, words[:rows], [0] * rows)
    for terms in (_TERMS, 2 * _TERMS):
        calls[f"product {terms}"] = _sum_of_products(ring, terms)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            times[name].append(_seconds(call))

    def microseconds(kind: str, less: int, more: int, rows: int) -> float:
        return 1e6 * (median(times[f"{kind} {more}"]) - median(times[f"{kind} {less}"])) / rows

    return KernelSpeed(
        microseconds("forward", 1, 3, 2),
        microseconds("inverse", 1, 3, 2),
        microseconds("product", _TERMS, 2 * _TERMS, 2 * _TERMS),
        _bytes_a_second(),
    )


def _sum_of_products(ring: NativeRing, terms: int) -> Callable[[], object]:
    """What sums ciphertexts times constants at level 0."""
    slots, degree = ring.parameters.slots, ring.parameters.ring_degree
    constants = tuple(np.random.default_rng(0).uniform(-1, 1, (terms, slots)))
    ops = [Op(Kind.INPUT, input=number) for number in range(_VALUES)]
    products = range(_VALUES, _VALUES + terms)
    ops += [Op(Kind.MULTIPLY_PLAIN, (n % _VALUES,), constant=n, scale=2.0**12) for n in range(terms)]
    total = products[0]
    for product in products[1:]:
        ops.append(Op(Kind.ADD, (total, product)))
        total = len(ops) - 1
    circuit = Circuit(slots, tuple(ops), (total,), constants)
    program = NativeProgram(TypedCircuit(circuit, ring.parameters, 0, 2.0**12), ring)
    words = np.zeros((1, degree), np.uint32)
    keys = NativeKeys(ring, {})
    return lambda: program.run([(words, words)] * _VALUES, keys)


def _bytes_a_second() -> float:
    words = np.ones(STREAMED_BYTES // 4, np.uint32)
    return STREAMED_BYTES / median(_seconds(words.max) for _ in range(10))


def _seconds(call: Callable[[], object]) -> float:
    started = thread_time()
    call()
    return thread_time() - started
