"""Programs of real circuits in the format of program_target.cpp: `python tests/fuzz/program_seeds.py FOLDER`."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator, Sequence
from math import log2
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from circuits import SCALE, every_operation, weighted_rotations
from rings import tiny_parameters

from heinfer.backends.native.plan import NativePlan, native_plan
from heinfer.circuit.typed import TypedCircuit

STEPS = (1, 7)
"""Of rotations for which program_target.cpp has keys."""
PARAMETERS = tiny_parameters(64, (30, 24, 28), 30)
"""A ring of the target's shape; its primes do not matter to a program."""
LEVEL = PARAMETERS.top_level


def programs() -> Iterator[tuple[str, bytes]]:
    """Names and bytes: every operation, and sums over shared rotations; constants kept, or encoded in the run."""
    every = every_operation(PARAMETERS.slots, LEVEL, STEPS)
    hoisted = weighted_rotations(PARAMETERS.slots, STEPS, np.linspace(0, 1, PARAMETERS.slots))
    for name, circuit in (("every", every), ("hoisted", hoisted)):
        typed = TypedCircuit(circuit, PARAMETERS, LEVEL, SCALE)
        for memory, most in (("kept", float("inf")), ("encoded", 0.0)):
            for threads in (1, 2):
                plan = native_plan(typed, most_constant_bytes=most)
                yield f"good-{name}-{memory}-{threads}", to_bytes(plan, threads)
    exact = native_plan(TypedCircuit(hoisted, PARAMETERS, LEVEL, SCALE), exact=True)
    yield "good-hoisted-exact", to_bytes(exact, 1)


def to_bytes(plan: NativePlan, threads: int) -> bytes:
    """A program, its constants by exponent: even of all slots, odd for one value."""
    exponents = [
        2 * round(log2(constant.scale) / 2) + (len(plan.typed.circuit.constants[constant.number]) == 1)
        for constant in plan.constants
    ]
    return b"".join(
        (
            bytes([threads - 1]),
            _number(plan.arena.rows),
            *map(_numbers, (plan.inputs, plan.typed.circuit.outputs, plan.value_array.tolist(), exponents)),
            *map(_number, plan.code_array.tolist()),
        )
    )


def _numbers(numbers: Sequence[int]) -> bytes:
    return b"".join(map(_number, (len(numbers), *numbers)))


def _number(number: int) -> bytes:
    return bytes([number + 2]) if -2 <= number < 238 else b"\xf0" + struct.pack("<q", number)


def main(folder: Path) -> None:
    """Write them all."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in programs():
        (folder / name).write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
