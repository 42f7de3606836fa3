"""Validators of circuits: structure, levels, scales and ranges, each refused by the layer's name."""

from dataclasses import replace

import numpy as np
import pytest
from rings import tiny_parameters

from heinfer.circuit.annotate import ValueType
from heinfer.circuit.builder import Builder
from heinfer.circuit.ir import Circuit, Kind, Layer, Op
from heinfer.circuit.typed import TypedCircuit
from heinfer.circuit.validate import validate, validate_ranges, validate_structure
from heinfer.errors import CircuitError, RangeError

PARAMETERS = tiny_parameters(64, (28, 26, 26))
SCALE = 2.0**20
ONES = np.ones(32)


def good() -> Circuit:
    """Two layers: an affine map of two inputs, and a square."""
    builder = Builder(32)
    x, y = builder.input(0), builder.input(1)
    builder.layer(Layer("conv"))
    product = builder.multiply_plain(builder.rotate(x, 3), ONES)
    total = builder.rescale(builder.add(product, builder.multiply_plain(y, ONES)))
    builder.layer(Layer("act"))
    circuit = builder.finish((builder.rescale(builder.square(builder.add_plain(total, ONES))),))
    ops = (replace(op, scale=SCALE) if op.kind is Kind.MULTIPLY_PLAIN else op for op in circuit.ops)
    return replace(circuit, ops=tuple(ops))


def typed(circuit: Circuit, level: int = 2) -> TypedCircuit:
    return TypedCircuit(circuit, PARAMETERS, level, SCALE)


def position(kind: Kind) -> int:
    return next(number for number, op in good() if op.kind is kind)


def changed(kind: Kind, **fields: object) -> Circuit:
    """The good circuit with the first operation of a kind changed."""
    circuit, number = good(), position(kind)
    ops = list(circuit.ops)
    ops[number] = replace(ops[number], **fields)
    return replace(circuit, ops=tuple(ops))


def test_a_good_circuit_passes() -> None:
    circuit = typed(good())
    validate(circuit, [1.0] * len(circuit.types))
    assert [value.level for value in circuit.output_types] == [0]


# Structure ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("circuit", "complaint"),
    [
        (changed(Kind.ADD, args=(0,)), "conv: .*takes 2 arguments, has 1"),
        (changed(Kind.INPUT, args=(0,)), "the network: .*takes 0 arguments, has 1"),
        (changed(Kind.RESCALE, args=(6,)), "conv: .*reads .6,., which are not all before it"),
        (changed(Kind.RESCALE, args=(-1,)), "conv: .*reads"),
        (changed(Kind.ROTATE, step=0), "conv: .*rotation step 0"),
        (changed(Kind.ROTATE, step=32), "conv: .*rotation step 32"),
        (changed(Kind.ROTATE, step=-1), "conv: .*rotation step -1"),
        (changed(Kind.ADD, step=1), "conv: .*rotation step 1"),
        (changed(Kind.ADD, step=-1), "conv: .*rotation step -1"),
        (changed(Kind.MULTIPLY_PLAIN, constant=-1), "conv: .*constant -1"),
        (changed(Kind.MULTIPLY_PLAIN, constant=3), "conv: .*constant 3"),
        (changed(Kind.ADD, constant=0), "conv: .*constant 0"),
        (changed(Kind.ADD, constant=7), "conv: .*constant 7"),
        (changed(Kind.INPUT, input=-1), "the network: .*input -1"),
        (changed(Kind.ADD, input=0), "conv: .*input 0"),
        (changed(Kind.ADD, layer=2), "the network: .*layer 2 of 2"),
        (changed(Kind.ADD, layer=-2), "the network: .*layer -2 of 2"),
        (changed(Kind.INPUT, input=1), "inputs are numbered .1, 1., not 0..1"),
        (changed(Kind.INPUT, input=2), "inputs are numbered .2, 1., not 0..1"),
        (replace(good(), constants=(ONES, ONES[:5], ONES)), r"conv: .*constant of shape \(5,\)"),
        (replace(good(), constants=(ONES, ONES, ONES * np.nan)), "act: .*constant that is not finite"),
        (replace(good(), constants=(ONES * np.inf, ONES, ONES)), "conv: .*constant that is not finite"),
        (replace(good(), outputs=()), "outputs .. are not values"),
        (replace(good(), outputs=(99,)), "outputs .99,. are not values"),
        (replace(good(), outputs=(-1,)), "outputs .-1,. are not values"),
    ],
)
def test_a_malformed_circuit_is_refused(circuit: Circuit, complaint: str) -> None:
    with pytest.raises(CircuitError, match=complaint):
        validate_structure(circuit)


def test_a_scalar_is_a_constant_too() -> None:
    validate_structure(replace(good(), constants=(ONES[:1], ONES[:1], ONES)))


# Levels, scales and sizes --------------------------------------------------------------------------


def chain(*ops: Op) -> Circuit:
    return Circuit(
        32, (Op(Kind.INPUT, input=0), *(replace(op, layer=0) for op in ops)), (len(ops),), (ONES,), (Layer("conv"),)
    )


SQUARE = Op(Kind.MULTIPLY, (0, 0))


@pytest.mark.parametrize(
    ("circuit", "complaint"),
    [
        (
            chain(Op(Kind.RESCALE, (0,)), Op(Kind.ADD, (0, 1))),
            "operands are at levels 2 and 1",
        ),
        (
            chain(Op(Kind.RESCALE, (0,)), Op(Kind.MULTIPLY, (1, 0))),
            "operands are at levels 1 and 2",
        ),
        (
            chain(Op(Kind.MULTIPLY_PLAIN, (0,), constant=0, scale=2.0), Op(Kind.ADD, (0, 1))),
            "operands have the scales 1048576.0 and 2097152.0",
        ),
        (
            chain(Op(Kind.MULTIPLY_PLAIN, (0,), constant=0, scale=1 + 2.0**-51), Op(Kind.ADD, (0, 1))),
            "operands have the scales",
        ),
        (
            chain(Op(Kind.RESCALE, (0,)), Op(Kind.RESCALE, (1,)), Op(Kind.RESCALE, (2,))),
            "no level is left: the circuit needs more than the 2 levels",
        ),
        (
            chain(Op(Kind.DROP_LEVEL, (0,)), Op(Kind.DROP_LEVEL, (1,)), Op(Kind.DROP_LEVEL, (2,))),
            "no level is left",
        ),
        (chain(SQUARE, Op(Kind.ROTATE, (1,), step=1)), "must be relinearized before it is rotated"),
        (chain(SQUARE, Op(Kind.MULTIPLY, (1, 0))), "factors must be relinearized first"),
    ],
)
def test_what_does_not_fit_is_refused_by_the_layer_name(circuit: Circuit, complaint: str) -> None:
    validate_structure(circuit)
    with pytest.raises(CircuitError, match=f"^conv: value {len(circuit.ops) - 1} .*{complaint}"):
        _ = typed(circuit).types


@pytest.mark.parametrize("level", [-1, 3])
def test_an_input_level_that_the_parameters_do_not_give_is_refused(level: int) -> None:
    with pytest.raises(CircuitError, match=f"inputs at level {level}"):
        _ = typed(good(), level).types


def test_types_are_what_the_library_will_compute() -> None:
    last, middle = PARAMETERS.data_primes[2], PARAMETERS.data_primes[1]
    circuit = chain(
        Op(Kind.MULTIPLY_PLAIN, (0,), constant=0, scale=3.0),
        Op(Kind.RESCALE, (1,)),
        Op(Kind.MULTIPLY, (2, 2)),
        Op(Kind.ADD, (3, 3)),
        Op(Kind.RESCALE, (4,)),
        Op(Kind.RELINEARIZE, (5,)),
        Op(Kind.ADD_PLAIN, (6,), constant=0),
        Op(Kind.ROTATE, (7,), step=1),
    )
    affine = SCALE * 3.0 / last
    assert typed(circuit).types == (
        ValueType(2, SCALE),
        ValueType(2, SCALE * 3.0),
        ValueType(1, affine),
        ValueType(1, affine * affine, 3),
        ValueType(1, affine * affine, 3),
        ValueType(0, affine * affine / middle, 3),
        *[ValueType(0, affine * affine / middle)] * 3,
    )


def test_dropping_a_level_keeps_the_scale() -> None:
    assert typed(chain(Op(Kind.DROP_LEVEL, (0,)))).types[1] == ValueType(1, SCALE)


# Ranges ------------------------------------------------------------------------------------------


def test_a_plan_that_would_overflow_is_refused_with_the_layer_and_the_way_out() -> None:
    circuit = typed(good())
    half = PARAMETERS.data_primes[0] / 2
    types = circuit.types
    bounds = [1.0] * len(types)
    bounds[-1] = half / types[-1].scale * (1 - 1e-9)
    validate_ranges(circuit, bounds)
    bounds[-1] = half / types[-1].scale
    with pytest.raises(RangeError, match=r"^act: values up to .* level 0 has 28.0: lower the scale"):
        validate_ranges(circuit, bounds)


@pytest.mark.parametrize("number", range(len(good().ops)))
def test_every_value_is_checked_at_its_own_level(number: int) -> None:
    circuit = good()
    types = typed(circuit).types
    half = np.prod([float(q) for q in PARAMETERS.primes_at(types[number].level)]) / 2
    bounds = [2.0**-30] * len(circuit.ops)
    bounds[number] = 1.0001 * half / types[number].scale
    with pytest.raises(RangeError, match=f"^{circuit.layer_name(circuit.ops[number])}: "):
        validate_ranges(typed(circuit), bounds)


@pytest.mark.parametrize("bound", [np.nan, np.inf])
def test_a_bound_that_is_no_number_is_no_bound(bound: float) -> None:
    circuit = typed(good())
    with pytest.raises(RangeError):
        validate_ranges(circuit, [bound] * len(circuit.types))


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf])
def test_a_factor_without_a_scale_is_refused(scale: float) -> None:
    circuit = changed(Kind.MULTIPLY_PLAIN, scale=scale)
    lone = replace(circuit, ops=circuit.ops[: position(Kind.MULTIPLY_PLAIN) + 1], outputs=(0,))
    with pytest.raises(CircuitError, match=r"^conv: value 3 .multiply_plain. has the scale"):
        validate(typed(lone), [1.0] * len(lone.ops))
