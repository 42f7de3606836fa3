"""Bundles that are well formed and cost far more than their size: each is refused by name, and soon."""

import lzma
import struct
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from time import process_time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_circuits import random_circuits
from rich.console import Console
from samples import PARAMETERS, sample_bundle
from test_bundle import PREAMBLE, file_of, sealed, tensors

from heinfer.backends.native import arena, native_plan
from heinfer.backends.native.arena import MOST_ROWS
from heinfer.circuit.counts import count, count_layers
from heinfer.circuit.ir import Circuit, Kind, Layer, Op
from heinfer.circuit.passes import remove_dead_code
from heinfer.compiler.report import report
from heinfer.errors import BundleError, CircuitError, ManifestError
from heinfer.formats.bundle import (
    BYTES_PER_OPERATION,
    FREE_INFLATION,
    FREE_OPERATIONS,
    MOST_INFLATION,
    from_bytes,
    load,
    to_bytes,
)
from heinfer.formats.circuit_tensors import circuit_of, tensors_of
from heinfer.formats.manifest import parse_manifest
from heinfer.zoo.shipped import BUNDLES
from heinfer_cli.report_table import print_report

GOOD = sample_bundle()
MANY = 10_000


def extended(ops: list[Op], outputs: tuple[int, ...] | None = None) -> bytes:
    """The sample, with more operations after its own."""
    circuit = replace(GOOD.circuit, ops=(*GOOD.circuit.ops, *ops), outputs=outputs or GOOD.circuit.outputs)
    return to_bytes(replace(GOOD, circuit=circuit, bounds=(*GOOD.bounds, *[1.0] * len(ops))))


# What nothing uses -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ops",
    [
        [Op(Kind.ROTATE, (0,), step=3)] * MANY,
        [Op(Kind.ROTATE, (8 + number if number else 0,), step=3) for number in range(MANY)],
        [Op(Kind.MULTIPLY, (0, 0))],
        [Op(Kind.ADD, (8, 8))],
    ],
    ids=["wide", "each reads the one before", "one product", "one sum"],
)
def test_operations_that_no_result_depends_on_are_refused(ops):
    with pytest.raises(BundleError, match=r"operations that nothing uses, .* compile the model again"):
        from_bytes(extended(ops))


def test_constants_and_layers_that_no_operation_has_are_refused():
    for changes, what in (
        ({"constants": (*GOOD.circuit.constants, np.array([1.0]))}, "1 constants that nothing uses, number 2"),
        ({"layers": (Layer("none"), *GOOD.circuit.layers)}, "1 layers that nothing uses, number 2"),
    ):
        with pytest.raises(BundleError, match=what):
            from_bytes(to_bytes(replace(GOOD, circuit=replace(GOOD.circuit, **changes))))


@settings(max_examples=60, deadline=None)
@given(circuit=random_circuits(PARAMETERS, level=1, steps=(3, 5)))
def test_a_circuit_is_refused_exactly_when_it_has_dead_code(circuit):
    try:
        circuit_of(tensors_of(circuit), circuit.slots)
    except BundleError:
        refused = True
    else:
        refused = False
    alive = remove_dead_code(circuit)
    shrinks = (len(alive.ops), len(alive.constants)) != (len(circuit.ops), len(circuit.constants))
    idle = not all(circuit.by_layer)
    assert refused == (shrinks or idle)
    living = replace(alive, layers=(), ops=tuple(replace(op, layer=-1, hoist=-1) for op in alive.ops))
    assert circuit_of(tensors_of(living), living.slots).ops == living.ops


# Counts beyond the file's size -----------------------------------------------------------------


def test_a_small_file_has_few_operations_even_if_all_are_used():
    chain = [Op(Kind.ADD, (7 + number, 7 + number)) for number in range(1, FREE_OPERATIONS * 2)]
    with pytest.raises(BundleError, match=r"bytes has at most .* operations, not .* compile the model again"):
        from_bytes(extended(chain, (8 + len(chain),)))


def test_as_many_operations_as_the_bound_are_dealt_with_in_seconds():
    """Rotations that leave holes of all sizes in the memory of a run: first fit by search took a minute for each."""
    circuit, first, half = GOOD.circuit, len(GOOD.circuit.ops), FREE_OPERATIONS // 3
    turned = [Op(Kind.ROTATE, (0,), step=3, hoist=1)] * (2 * half)
    order = [*range(1, 2 * half, 2), *range(0, 2 * half, 2)]
    sums, last = [], first + order[0]
    for place in order[1:]:
        sums.append(Op(Kind.ADD, (last, first + place)))
        last = first + len(turned) + len(sums) - 1
    large = replace(circuit, ops=(*circuit.ops, *turned, *sums), outputs=(last,))
    began = process_time()
    plan = native_plan(replace(GOOD, circuit=large).typed)
    assert process_time() - began < 10
    assert plan.arena.rows < MOST_ROWS


def test_a_run_that_would_hold_more_than_any_machine_has_is_refused(monkeypatch):
    monkeypatch.setattr(arena, "MOST_ROWS", 8)
    with pytest.raises(CircuitError, match="more than 8 rows"):
        native_plan(GOOD.typed)


def test_outputs_are_counted_before_they_are_read():
    with pytest.raises(BundleError, match=r"at most .* outputs"):
        from_bytes(file_of(tensors() | {"outputs": np.full(1 << 20, 8, dtype="<i4")}))


def test_what_a_file_inflates_to_is_bounded_by_its_size():
    bomb = lzma.compress(bytes(1 << 26))
    with pytest.raises(BundleError, match=r"of payload inflates to at most .* compile the model again"):
        from_bytes(sealed(bomb, 1 << 26))
    zeros = tensors()
    zeros["metadata"] = np.zeros(1 << 25, dtype="<u1")
    with pytest.raises(BundleError, match="of payload inflates to at most"):
        from_bytes(file_of(zeros))


def test_a_list_of_arrays_that_never_ends_is_not_read():
    header = b"{" + b" " * (1 << 17) + b"}"
    blob = struct.pack("<Q", len(header)) + header
    with pytest.raises(BundleError, match="list of arrays has at most"):
        from_bytes(sealed(lzma.compress(blob), len(blob)))


@pytest.mark.parametrize("path", sorted(BUNDLES.glob("*.heinfer")), ids=lambda path: path.stem)
def test_shipped_bundles_keep_the_bounds_by_far(path):
    data = path.read_bytes()
    blob = len(lzma.decompress(data[PREAMBLE:]))
    assert 3 * blob < FREE_INFLATION + MOST_INFLATION * len(data)
    assert 10 * len(load(path).circuit.ops) < FREE_OPERATIONS + len(data) // BYTES_PER_OPERATION


# Passes over it --------------------------------------------------------------------------------


class _FirstFit:
    """Free ranges as a list that is searched from the start: slow, and plain to see."""

    def __init__(self) -> None:
        self.rows = 0
        self.free: set[int] = set()

    def take(self, size: int) -> int:
        start = next(
            (row for row in sorted(self.free) if all(row + more in self.free for more in range(size))), self.rows
        )
        if start == self.rows:
            while start - 1 in self.free:
                start -= 1
        self.rows = max(self.rows, start + size)
        self.free -= set(range(start, start + size))
        return start

    def give(self, start: int, size: int) -> None:
        self.free |= set(range(start, start + size))


@settings(max_examples=100, deadline=None)
@given(steps=st.lists(st.tuples(st.booleans(), st.integers(1, 9), st.integers(0, 1000)), max_size=60))
def test_places_are_those_of_a_plain_search(steps):
    fast, plain, held = arena._FreeRows(), _FirstFit(), []
    for gives, size, which in steps:
        if gives and held:
            given_back = held.pop(which % len(held))
            fast.give(*given_back)
            plain.give(*given_back)
        else:
            held.append((fast.take(size), size))
            assert held[-1][0] == plain.take(size)
    assert fast.rows == plain.rows


def seconds(action: Callable[[], object]) -> float:
    began = process_time()
    action()
    return process_time() - began


def test_counts_of_many_layers_take_one_pass():
    ops = (Op(Kind.INPUT, input=0), *(Op(Kind.ADD, (0, 0), layer=number) for number in range(MANY)))
    circuit = Circuit(8, ops, (MANY,), (), (Layer("a"),) * MANY)
    assert count_layers(circuit) == tuple(count([op]) for op in ops[1:])
    assert seconds(lambda: count_layers(replace(circuit))) < 5


def test_a_report_is_printed_of_a_model_without_layers():
    ops = tuple(replace(op, layer=-1) for op in GOOD.circuit.ops)
    bundle = from_bytes(to_bytes(replace(GOOD, circuit=replace(GOOD.circuit, layers=(), ops=ops))))
    printed = StringIO()
    print_report(report(bundle), Console(file=printed))
    assert "evaluation keys" in printed.getvalue()


# Numbers that SEAL before 4.4 takes, and has no defined result for -------------------------------


@pytest.mark.parametrize("value", [1e308, -1e308, 1e12])
def test_constants_beyond_the_modulus_are_refused(value):
    constants = (GOOD.circuit.constants[0], np.array([value]))
    with pytest.raises(BundleError, match=r"conv1: the constants of value 5 .* exceed half the modulus of level 1"):
        from_bytes(to_bytes(replace(GOOD, circuit=replace(GOOD.circuit, constants=constants))))


@pytest.mark.parametrize("scale", [5e-324, 1e-310])
def test_scales_are_normal_numbers(scale):
    arrays = tensors()
    arrays["op.scale"][1] = scale
    with pytest.raises(BundleError, match=r"op\.scale"):
        from_bytes(file_of(arrays))
    for part in (GOOD.manifest.input, GOOD.manifest.output):
        told = GOOD.manifest.to_bytes().decode()
        changed = told.replace(f'"scale":{part.scale!r}', f'"scale":{scale!r}')
        assert changed != told
        with pytest.raises(ManifestError, match="scale"):
            parse_manifest(changed.encode())
