"""Lowering of a Chebyshev series: a layer for every line, and so a level each."""

from __future__ import annotations

from heinfer.circuit.builder import Builder
from heinfer.circuit.ir import Layer, SlotVector
from heinfer.network.operators import per_channel
from heinfer.network.pairs import Vector
from heinfer.planner.plan import SeriesStep
from heinfer.planner.series import Line


def lower_series(builder: Builder, step: SeriesStep, values: list[int], label: str) -> list[int]:
    """The series of every ciphertext, whose level is that of the step and whose layout has a label."""
    made: list[list[int]] = [values]
    depths = [0]
    for number, line in enumerate(step.lines):
        name = step.name if line.name == "sum" else f"{step.name} {line.name}"
        builder.layer(Layer(name, _kernel(line), label, label))
        before = line.depth - 1
        down = {read: [_down(builder, x, before - depths[read]) for x in made[read]] for read in line.reads}
        made.append([_line(builder, step, line, i, down) for i in range(len(values))])
        depths.append(step.lines[number].depth)
    return made[-1]


def _kernel(line: Line) -> str:
    parts = ["product"] * bool(line.factors) + [f"{len(line.weights)} plaintexts"] * bool(line.weights)
    return " and ".join(parts)


def _down(builder: Builder, x: int, levels: int) -> int:
    for _ in range(levels):
        x = builder.drop_level(x)
    return x


def _line(builder: Builder, step: SeriesStep, line: Line, ciphertext: int, values: dict[int, list[int]]) -> int:
    """One ciphertext of a line: the product first, whose scale the plaintexts' products then have."""
    parts = []
    if line.factors:
        x, y = (values[factor][ciphertext] for factor in line.factors)
        parts.append(builder.multiply(x, y))
    for read, weight in line.weights.items():
        parts.append(builder.multiply_plain(values[read][ciphertext], _packed(step, weight, ciphertext)))
    total = parts[0]
    for part in parts[1:]:
        total = builder.add(total, part)
    total = builder.rescale(total)
    return total if line.constant is None else builder.add_plain(total, _packed(step, line.constant, ciphertext))


def _packed(step: SeriesStep, of_channel: Vector, ciphertext: int) -> SlotVector:
    """A number for each channel where its elements are; where none is the slot is zero, and stays zero."""
    elements = per_channel(of_channel, step.layout.shape).reshape(step.layout.shape)
    packed: SlotVector = step.layout.pack(elements)[ciphertext]
    return packed
