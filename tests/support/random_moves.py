"""Functions that only move elements, as random programs call them: by name, what each makes of an example."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from drawn import Draw, Function, Maker
from random_borders import border, nearest, pad, written
from torch import Tensor
from torch.nn import functional

aten: Any = torch.ops.aten


def _shaped(function: str) -> Maker:
    """The same elements in other axes."""

    def make(d: Draw, x: Tensor) -> Function:
        sizes = d.sizes(prod(x.shape[1:]), d.number(1, 4))

        def run(y: Tensor) -> Any:
            whole = [len(y), *sizes]
            y = y.contiguous()
            if function.endswith("_as"):
                return getattr(y, function)(torch.zeros(whole, dtype=y.dtype))
            if function == "_reshape_alias":
                return aten._reshape_alias(y, whole, torch.empty(whole).stride())
            return getattr(aten, function)(y, whole)

        return run

    return make


def _flatten(d: Draw, x: Tensor) -> Function:
    first = d.axis(x)
    last = d.number(first, x.dim() - 1)
    return lambda y: y.flatten(first, last)


def _unflatten(d: Draw, x: Tensor) -> Function:
    axis = d.axis(x)
    sizes = d.sizes(x.shape[axis], 2)
    return lambda y: torch.unflatten(y, axis, sizes)


def _permute(d: Draw, x: Tensor) -> Function:
    order = [0, *(1 + d.rng.permutation(x.dim() - 1)).tolist()]
    return lambda y: y.permute(order)


def _swapped(function: str) -> Maker:
    def make(d: Draw, x: Tensor) -> Function:
        one, other = d.axis(x), d.axis(x) - (x.dim() if d.yes() else 0)
        return lambda y: getattr(torch, function)(y, one, other)

    return make


def _within(function: Maker) -> Maker:
    """A function of the first axis, with the batch at the end meanwhile."""

    def make(d: Draw, x: Tensor) -> Function | None:
        run = function(d, x.movedim(0, -1))
        return None if run is None else lambda y: run(y.movedim(0, -1)).movedim(-1, 0)

    return make


def _same(function: str) -> Maker:
    return lambda d, x: getattr(aten, function)


def _part_of(function: str) -> Maker:
    """Parts of a tensor along an axis, put together in another order."""

    def make(d: Draw, x: Tensor) -> Function:
        axis = d.axis(x, 2)
        n = x.shape[axis]
        how: int | list[int] = d.number(2, n)
        if "sizes" in function:
            first = d.number(1, n - 1)
            how = [first, n - first]
        elif function in ("split", "unsafe_split"):
            how = d.number(1, n - 1)
        return lambda y: torch.cat(list(getattr(aten, function)(y, how, axis))[::-1], axis)

    return make


def _split_by_name(function: str, axis: int) -> Maker:
    def make(d: Draw, x: Tensor) -> Function | None:
        if x.dim() <= axis or x.shape[axis] < 2:
            return None
        first = d.number(1, x.shape[axis] - 1)
        return lambda y: torch.cat(list(getattr(torch, function)(y, [first]))[::-1], axis)

    return make


def _slice(d: Draw, x: Tensor) -> Function:
    axis = d.axis(x, 2)
    first, step = d.number(0, x.shape[axis] - 2), d.number(1, 3)
    return lambda y: y[(slice(None),) * axis + (slice(first, None, step),)]


def _select(d: Draw, x: Tensor) -> Function:
    axis = d.axis(x)
    place = d.number(-x.shape[axis], x.shape[axis] - 1)
    return lambda y: torch.cat([y, y.select(axis, place).unsqueeze(axis)], axis)


def _narrow(d: Draw, x: Tensor) -> Function:
    axis = d.axis(x, 2)
    first = d.number(0, x.shape[axis] - 1)
    length = d.number(1, x.shape[axis] - first)
    return lambda y: aten.narrow(y, axis, first, length)


def _unbind(d: Draw, x: Tensor) -> Function:
    axis = d.axis(x)
    return lambda y: torch.stack(y.unbind(axis)[::-1], axis)


def _indexed(function: str) -> Maker:
    def make(d: Draw, x: Tensor) -> Function:
        axis = d.axis(x)
        places = d.places(x.shape[axis])
        if function == "index_select":
            return lambda y: y.index_select(axis, places)
        return lambda y: y[(slice(None),) * axis + (places,)]

    return make


def _gather(d: Draw, x: Tensor) -> Function:
    axis = d.axis(x)
    places = torch.tensor(d.rng.integers(0, x.shape[axis], x.shape[1:]))
    return lambda y: y.gather(axis, places.expand_as(y))


def _take(d: Draw, x: Tensor) -> Function:
    size = prod(x.shape[1:])
    places = d.places(size)
    return lambda y: y.take(places + size * torch.arange(len(y))[:, None])


def _triangle(function: str) -> Maker:
    def make(d: Draw, x: Tensor) -> Function | None:
        k = d.number(-1, 1)
        return None if x.dim() < 3 else lambda y: getattr(torch, function)(y, k)

    return make


def _diagonal(d: Draw, x: Tensor) -> Function | None:
    k = d.number(0, 1)
    return None if x.dim() < 3 else lambda y: y.diagonal(k, 1, 2)


def _unfold(d: Draw, x: Tensor) -> Function:
    axis = d.axis(x, 2)
    size, step = d.number(1, min(3, x.shape[axis])), d.number(1, 3)
    return lambda y: y.unfold(axis, size, step)


def _im2col(d: Draw, x: Tensor) -> Function | None:
    kernel, padding, stride = d.number(1, 3), d.number(0, 1), d.number(1, 2)
    return None if x.dim() != 4 else lambda y: functional.unfold(y, kernel, 1, padding, stride)


def _together(function: str) -> Maker:
    """A tensor beside itself, moved, or beside constants."""

    def make(d: Draw, x: Tensor) -> Function:
        axis, turned, scale = d.axis(x), d.axis(x), d.one([2.0, -0.5, 1e-3])
        beside = d.yes()

        def run(y: Tensor) -> Any:
            other = scale * y.flip(turned) if beside else torch.full_like(y, scale)
            named = getattr(torch, function, None) or getattr(aten, function)
            return named([y, other]) if function.endswith("stack") and function != "stack" else named([y, other], axis)

        return run

    return make


def _flip(d: Draw, x: Tensor) -> Function:
    axes = sorted({d.axis(x), d.axis(x)})
    return lambda y: y.flip(axes)


def _roll(d: Draw, x: Tensor) -> Function:
    axis, by = d.axis(x), d.number(-3, 3)
    return lambda y: y.roll(by, axis)


def _rot90(d: Draw, x: Tensor) -> Function | None:
    k = d.number(1, 3)
    return None if x.dim() < 3 else lambda y: y.rot90(k, (1, 2))


def _shuffled(function: str) -> Maker:
    def make(d: Draw, x: Tensor) -> Function | None:
        if x.dim() != 4:
            return None
        by = d.divisor(x.shape[1]) if "channel" in function else 2
        named = getattr(aten, function)
        return lambda y: named(y, by)

    return make


def _expand(function: str) -> Maker:
    def make(d: Draw, x: Tensor) -> Function:
        axis, n = d.number(1, x.dim()), d.number(1, 3)

        def run(y: Tensor) -> Any:
            y = y.unsqueeze(axis)
            whole = [*y.shape[:axis], n, *y.shape[axis + 1 :]]
            if function == "expand_as":
                return y.expand_as(torch.zeros(whole))
            return getattr(aten, function)(y, whole)

        return run

    return make


def _repeated(function: str) -> Maker:
    def make(d: Draw, x: Tensor) -> Function:
        axis, n = d.axis(x), d.number(1, 3)
        if function == "repeat_interleave":
            return lambda y: y.repeat_interleave(n, axis)
        counts = [n if a == axis else 1 for a in range(x.dim())]
        return lambda y: getattr(aten, function)(y, counts)

    return make


MOVES: dict[str, Maker] = {
    **{name: _shaped(name) for name in ("view", "reshape", "_unsafe_view", "_reshape_alias", "view_as", "reshape_as")},
    "flatten": _flatten,
    "unflatten": _unflatten,
    "squeeze": lambda d, x: lambda y: y.squeeze(-1) if x.dim() > 2 else y,
    "unsqueeze": lambda d, x: lambda y: y.unsqueeze(1),
    "permute": _permute,
    **{name: _swapped(name) for name in ("transpose", "movedim", "moveaxis", "swapaxes", "swapdims")},
    "t": lambda d, x: None if x.dim() != 2 else lambda y: y.t()[:1].t(),
    **{name: _same(name) for name in ("contiguous", "clone", "detach", "alias", "lift_fresh_copy")},
    **{
        name: _part_of(name)
        for name in (
            "chunk",
            "split",
            "split_with_sizes",
            "unsafe_chunk",
            "unsafe_split",
            "unsafe_split_with_sizes",
            "tensor_split",
        )
    },
    "hsplit": _split_by_name("hsplit", 1),
    "dsplit": _split_by_name("dsplit", 2),
    "vsplit": _within(_split_by_name("vsplit", 0)),
    "slice": _slice,
    "select": _select,
    "narrow": _narrow,
    "unbind": _unbind,
    "index_select": _indexed("index_select"),
    "index": _indexed("index"),
    "gather": _gather,
    "take": _take,
    "diagonal": _diagonal,
    "tril": _triangle("tril"),
    "triu": _triangle("triu"),
    "unfold": _unfold,
    "im2col": _im2col,
    **{name: _together(name) for name in ("cat", "concat", "concatenate", "stack", "hstack", "dstack")},
    "vstack": _within(lambda d, x: lambda y: torch.vstack([y, -y])),
    "column_stack": lambda d, x: lambda y: torch.column_stack([y, 0.5 * y]),
    "flip": _flip,
    "fliplr": lambda d, x: lambda y: y.fliplr(),
    "flipud": _within(lambda d, x: lambda y: y.flipud()),
    "roll": _roll,
    "rot90": _rot90,
    **{
        name: _shuffled(name)
        for name in ("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle")
    },
    **{name: _expand(name) for name in ("expand", "expand_as", "broadcast_to")},
    **{name: _repeated(name) for name in ("repeat", "repeat_interleave", "tile")},
    **{f"pad {mode}": pad(mode) for mode in ("constant", "reflect", "replicate", "circular")},
    "constant_pad_nd": border("constant_pad_nd", 2),
    **{f"{kind}_pad{n}d": border(f"{kind}_pad{n}d", n) for kind in ("reflection", "replication") for n in (1, 2, 3)},
    **{f"nearest {n}d": nearest("nearest", n) for n in (1, 2, 3)},
    **{f"nearest-exact {n}d": nearest("nearest-exact", n) for n in (1, 2, 3)},
    **{
        name: written(name)
        for name in ("select_scatter", "slice_scatter", "diagonal_scatter", "index_put", "index_fill", "masked_fill")
    },
}
