"""What constants take that are made in every run."""

import numpy as np
import pytest
from circuits import SCALE, Builder
from rings import tiny_parameters

from heinfer.backends.native import native_plan
from heinfer.circuit.ir import Kind
from heinfer.circuit.typed import TypedCircuit
from heinfer.costs.constants import constants_milliseconds, transform_milliseconds
from heinfer.costs.tables import cost_table

pytest.importorskip("heinfer_native")

TINY = tiny_parameters(64, (30, 24, 28, 30), 30)
TABLE = cost_table(64, "native")


def milliseconds(most: float, *sizes: float) -> float:
    """Of products of one value by vectors of these sizes, one sum each."""
    b = Builder(TINY.slots)
    x = b.input()
    products = [b.with_constant(Kind.MULTIPLY_PLAIN, x, np.full(TINY.slots, size), 1.0) for size in sizes]
    typed = TypedCircuit(b.circuit(*products), TINY, TINY.top_level, SCALE)
    return constants_milliseconds(native_plan(typed, most_constant_bytes=most), TABLE)


def test_what_is_kept_as_residues_takes_nothing():
    assert milliseconds(np.inf, 1.0, 2.0**31) == 0


def test_coefficients_take_a_transform_a_row_and_slots_all_that_encoding_takes():
    assert milliseconds(0, 1.0, 2.0) == pytest.approx(2 * 4 * transform_milliseconds(TABLE))
    assert milliseconds(0, 2.0**31) == pytest.approx(TABLE("encode", 3))
    assert milliseconds(0, 1.0, 2.0**31) == pytest.approx(4 * transform_milliseconds(TABLE) + TABLE("encode", 3))


def test_a_transform_is_a_part_of_a_rescale_and_far_less_than_encoding_a_row():
    table = cost_table(16384, "native")
    assert 0 < 2 * table.levels * transform_milliseconds(table) <= table("rescale", table.levels - 1)
    assert transform_milliseconds(table) < 0.25 * table("encode", 0)
