"""A circuit as named arrays, one column for each attribute of its operations, and back with every index checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from heinfer.circuit.ir import Circuit, Kind, Layer, Op, SlotVector
from heinfer.errors import BundleError

Tensors: TypeAlias = Mapping[str, NDArray[Any]]

DTYPES: Mapping[str, tuple[str, int]] = {
    "op.kind": ("<u1", 1),
    "op.args": ("<i4", 2),
    "op.step": ("<i4", 1),
    "op.constant": ("<i4", 1),
    "op.scale": ("<f8", 1),
    "op.input": ("<i4", 1),
    "op.hoist": ("<i4", 1),
    "op.layer": ("<i4", 1),
    "outputs": ("<i4", 1),
    "layers": ("<u1", 1),
    "constant.length": ("<i4", 1),
    "constant.index": ("<u4", 1),
    "constant.value": ("<f8", 1),
}
"""Name -> dtype and number of axes. A constant is `length` entries of `index`, each the number of a value."""

MAX_ENTRIES = 1 << 18
"""Operations, constants, and outputs of a circuit: a few bytes each in a file become hundreds in memory."""

MAX_TEXT_BYTES = 1 << 20

# The numbers that `op.kind` holds: append only, and raise the bundle's version when you do.
_KINDS = (
    Kind.INPUT,
    Kind.ROTATE,
    Kind.MULTIPLY_PLAIN,
    Kind.ADD_PLAIN,
    Kind.ADD,
    Kind.MULTIPLY,
    Kind.RELINEARIZE,
    Kind.RESCALE,
    Kind.DROP_LEVEL,
)
_ARITY = {Kind.INPUT: 0, Kind.ADD: 2, Kind.MULTIPLY: 2}
_MAX_ARITY = 2
_UNUSED = -1
_LEAST_SCALE = float(np.finfo(np.float64).tiny)  # SEAL before 4.4 takes smaller ones, and divides by them

_LAYERS: TypeAdapter[list[tuple[str, str, str, str]]] = TypeAdapter(list[tuple[str, str, str, str]])


def tensors_of(circuit: Circuit) -> dict[str, NDArray[Any]]:
    """The arrays of a circuit; equal circuits give equal arrays."""
    ops = circuit.ops
    layers = [[layer.name, layer.kernel, layer.layout_in, layer.layout_out] for layer in circuit.layers]
    columns: dict[str, Any] = {
        "op.kind": [_KINDS.index(op.kind) for op in ops],
        "op.args": [[*op.args, _UNUSED, _UNUSED][:_MAX_ARITY] for op in ops],
        "op.step": [op.step for op in ops],
        "op.constant": [op.constant for op in ops],
        "op.scale": [op.scale for op in ops],
        "op.input": [op.input for op in ops],
        "op.hoist": [op.hoist for op in ops],
        "op.layer": [op.layer for op in ops],
        "outputs": circuit.outputs,
        "layers": list(json.dumps(layers).encode()),
        **_constant_columns(circuit.constants),
    }
    return {name: np.asarray(columns[name], dtype=dtype) for name, (dtype, _) in DTYPES.items()}


def circuit_of(tensors: Tensors, slots: int) -> Circuit:
    """Rebuild a circuit of `slots` slots from arrays of the right names, dtypes and numbers of axes.

    Levels and scales are not checked here (heinfer.circuit.annotate does).

    Raises:
        BundleError: when an index is out of range, an attribute is set that its kind does not have, or there is
            something that nothing reads.
    """
    layers = _layers_of(tensors["layers"])
    _check_columns(tensors, slots, len(tensors["constant.length"]), len(layers))
    _refuse_unread(tensors, len(layers))
    constants = _constants_of(tensors, slots)
    columns = [tensors[name].tolist() for name in DTYPES if name.startswith("op.")]
    ops = tuple(
        Op(_KINDS[kind], tuple(args[: _arity(_KINDS[kind])]), step, constant, scale, number, hoist, layer)
        for kind, args, step, constant, scale, number, hoist, layer in zip(*columns, strict=True)
    )
    return Circuit(slots, ops, tuple(tensors["outputs"].tolist()), constants, layers)


def _arity(kind: Kind) -> int:
    return _ARITY.get(kind, 1)


# Operations ------------------------------------------------------------------------------------


def _check_columns(tensors: Tensors, slots: int, constants: int, layers: int) -> None:
    kind = tensors["op.kind"]
    count = len(kind)
    for counted, what in ((count, "operations"), (constants, "constants"), (len(tensors["outputs"]), "outputs")):
        _require_few(counted, what)
    _require(count > 0 and int(kind.max()) < len(_KINDS), "op.kind")
    for name in DTYPES:
        if name.startswith("op."):
            _require(len(tensors[name]) == count, name)
    _require(tensors["op.args"].shape[1] == _MAX_ARITY, "op.args")
    arity = np.array([_arity(k) for k in _KINDS])[kind]
    for position in range(_MAX_ARITY):
        _check_index(tensors["op.args"][:, position], arity > position, 0, np.arange(count), _UNUSED, "op.args")
    inputs = _is(kind, Kind.INPUT)
    rotations = _is(kind, Kind.ROTATE)
    plaintexts = _is(kind, Kind.MULTIPLY_PLAIN, Kind.ADD_PLAIN)
    _check_index(tensors["op.step"], rotations, 1, slots, 0, "op.step")
    _check_index(tensors["op.constant"], plaintexts, 0, constants, _UNUSED, "op.constant")
    _check_index(tensors["op.hoist"], rotations, -1, count, _UNUSED, "op.hoist")
    _check_index(tensors["op.layer"], np.ones(count, dtype=bool), -1, layers, _UNUSED, "op.layer")
    _check_index(tensors["op.input"], inputs, 0, count, _UNUSED, "op.input")
    numbers = np.sort(tensors["op.input"][inputs])
    _require(np.array_equal(numbers, np.arange(len(numbers))), "op.input")
    scale, products = tensors["op.scale"], _is(kind, Kind.MULTIPLY_PLAIN)
    _require(
        bool((np.isfinite(scale) & (scale >= _LEAST_SCALE))[products].all() and (scale[~products] == 0).all()),
        "op.scale",
    )
    _check_hoists(tensors["op.hoist"], tensors["op.args"][:, 0])
    outputs = tensors["outputs"]
    _check_index(outputs, np.ones(len(outputs), dtype=bool), 0, count, _UNUSED, "outputs")


def _refuse_unread(tensors: Tensors, layers: int) -> None:
    """Refuse what no result depends on: the compiler leaves none, and all of it would be checked, planned and run.

    Of values that no result depends on, the last is read by nothing at all, so that needs no search. Inputs are exempt:
    clients send them, whatever becomes of them.
    """
    kind, constant, layer = tensors["op.kind"], tensors["op.constant"], tensors["op.layer"]
    read = np.concatenate([tensors["op.args"].reshape(-1), tensors["outputs"], np.flatnonzero(_is(kind, Kind.INPUT))])
    for what, used, count in (
        ("operations", read, len(kind)),
        ("constants", constant, len(tensors["constant.length"])),
        ("layers", layer, layers),
    ):
        unused = np.bincount(used[used >= 0], minlength=count) == 0
        if unused.any():
            raise BundleError(
                f"the circuit has {np.count_nonzero(unused)} {what} that nothing uses, number {unused.argmax()} first: "
                "heinfer compile writes none, so compile the model again, or get the bundle from who did"
            )


def _check_hoists(hoist: NDArray[np.int32], source: NDArray[np.int32]) -> None:
    """Rotations of one group share the digits of one value: their sources are equal."""
    marked = hoist >= 0
    pairs = np.unique(np.stack([hoist[marked], source[marked]]), axis=1)
    _require(len(np.unique(pairs[0])) == pairs.shape[1], "op.hoist")


def _is(kind: NDArray[np.uint8], *kinds: Kind) -> NDArray[np.bool_]:
    return np.isin(kind, [_KINDS.index(k) for k in kinds])


def _check_index(
    column: NDArray[np.int32], used: NDArray[np.bool_], low: int, end: int | NDArray[np.int64], unused: int, what: str
) -> None:
    inside = (column >= low) & (column < end)
    _require(bool(np.where(used, inside, column == unused).all()), what)


def _require_few(count: int, what: str) -> None:
    if count > MAX_ENTRIES:
        raise BundleError(f"a circuit has at most {MAX_ENTRIES} {what}, not {count}")


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise BundleError(f"the circuit's {what} has an entry that is out of range, or does not belong there")


# Layers and constants --------------------------------------------------------------------------


def _layers_of(data: NDArray[np.uint8]) -> tuple[Layer, ...]:
    if len(data) > MAX_TEXT_BYTES:
        raise BundleError(f"the circuit's layers have at most {MAX_TEXT_BYTES} bytes")
    try:
        layers = _LAYERS.validate_json(data.tobytes())
    except ValidationError:
        raise BundleError("the circuit's layers are malformed") from None
    if not all(text.isprintable() for texts in layers for text in texts):  # they go to terminals
        raise BundleError("the circuit's layers have control characters")
    return tuple(Layer(*texts) for texts in layers)


def _constant_columns(constants: tuple[SlotVector, ...]) -> dict[str, NDArray[Any]]:
    """Each different double once, in order of appearance: weights repeat in many slots.

    First within every constant, then among what is left of all: of many constants no copy as doubles is made.
    """
    length = np.array([len(constant) for constant in constants], dtype="<i4")
    ends = np.cumsum(length, dtype=np.int64).tolist()
    index = np.empty(ends[-1] if ends else 0, dtype="<u4")
    parts, distinct = [np.zeros(0, "<u8")], 0
    for constant, end in zip(constants, ends, strict=True):
        part, within = _distinct(constant.astype("<f8", copy=False).view("<u8"))  # as bits: -0.0 is not 0.0
        np.add(within, distinct, out=index[end - len(constant) : end], casting="unsafe")
        parts.append(part)
        distinct += len(part)
    bits, number = _distinct(np.concatenate(parts))
    for constant, end in zip(constants, ends, strict=True):
        some = slice(end - len(constant), end)
        index[some] = number[index[some]]
    return {"constant.length": length, "constant.index": index, "constant.value": bits.view("<f8")}


def _distinct(bits: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Each once, in order of appearance, and of every entry the position in that."""
    values, first, inverse = np.unique(bits, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return values[order], rank[inverse]


def _constants_of(tensors: Tensors, slots: int) -> tuple[SlotVector, ...]:
    length, index, value = (tensors[f"constant.{name}"] for name in ("length", "index", "value"))
    _require(bool(np.isin(length, [1, slots]).all()) and int(length.sum()) == len(index), "constant.length")
    _require(not len(index) or int(index.max()) < len(value), "constant.index")
    _require(bool(np.isfinite(value).all()), "constant.value")
    flat: SlotVector = value[index].astype(np.float64, copy=False)
    flat.flags.writeable = False
    return tuple(np.split(flat, np.cumsum(length)[:-1])) if len(length) else ()
