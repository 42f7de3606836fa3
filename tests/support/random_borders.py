"""Borders, nearest neighbours, and elements that are written over, as random programs call them."""

from __future__ import annotations

from typing import Any

import torch
from drawn import Draw, Function, Maker
from torch import Tensor
from torch.nn import functional

aten: Any = torch.ops.aten


def pad(mode: str) -> Maker:
    def make(d: Draw, x: Tensor) -> Function | None:
        axes = d.number(1, max(1, x.dim() - 2))
        sizes = [d.number(0, 2) for _ in range(2 * axes)]
        if mode == "constant":
            sizes[0] = d.number(-1, 2)
            value = d.one([0.0, 1.5, -1000.0])
            return lambda y: functional.pad(y, sizes, value=value)
        whole = [d.number(0, 2) for _ in range(2 * (x.dim() - 2))]
        return lambda y: functional.pad(y, whole, mode=mode)

    return make


def border(function: str, along: int) -> Maker:
    def make(d: Draw, x: Tensor) -> Function | None:
        sizes = [d.number(0, 2) for _ in range(2 * along)]
        return None if x.dim() != along + 2 else lambda y: getattr(aten, function)(y, sizes)

    return make


def nearest(mode: str, along: int) -> Maker:
    def make(d: Draw, x: Tensor) -> Function | None:
        factor = d.one([2.0, 1.5, 0.5, 3.0])
        return None if x.dim() != along + 2 else lambda y: functional.interpolate(y, scale_factor=factor, mode=mode)

    return make


def written(function: str) -> Maker:
    """Another tensor, or a number, in the place of some elements."""

    def make(d: Draw, x: Tensor) -> Function | None:
        axis = d.axis(x, 2)
        place, value, scale = d.number(0, x.shape[axis] - 2), d.one([0.0, 2.5]), d.one([2.0, -0.5])
        places = torch.arange(place, x.shape[axis])
        match function:
            case "select_scatter":
                return lambda y: y.select_scatter(scale * y.select(axis, -1), axis, place)
            case "slice_scatter":
                return lambda y: y.slice_scatter(scale * y.narrow(axis, 0, 1), axis, place, place + 1)
            case "diagonal_scatter":
                return None if x.dim() < 3 else lambda y: y.diagonal_scatter(scale * y.diagonal(0, 1, 2), 0, 1, 2)
            case "index_fill":
                return lambda y: y.index_fill(axis, places, value)
            case "masked_fill":
                mask = torch.tensor(d.rng.random(x.shape[1:]) < 0.3)
                return lambda y: y.masked_fill(mask, value)
        return lambda y: aten.index_put(y, [None] * axis + [places], scale * y.index_select(axis, places))

    return make
