"""Block-circulant layers in a network: three linear maps in a row, of which the middle one is sparse in frequencies.

Channels of a spectrum are ordered as :class:`heinfer.nn.circulant.BlockDft` has them: channel q blocks + j is row q of
the transform of block j, and rows 2f and 2f + 1 are the real and the imaginary part of one frequency.
"""

from __future__ import annotations

from math import prod

import numpy as np

from heinfer.network.ir import Node
from heinfer.network.join import Index
from heinfer.network.linear_map import LinearMap
from heinfer.network.operators import Square
from heinfer.planner.search.merging import map_of


def triple(nodes: list[Node]) -> int:
    """Block size of the block-circulant layer that the first three nodes are; 0 when they are none."""
    if len(nodes) < 3 or any(isinstance(node.operator, Square) for node in nodes[:3]):
        return 0
    first, middle, last = (map_of(node) for node in nodes[:3])
    block = _block(first.reads)
    if block != _block(last.readers):
        return 0
    return (
        block if block and is_transform(first, block) and _is_spectral(middle, block) and _returns(last, block) else 0
    )


def is_transform(first: LinearMap, block: int) -> bool:
    """Whether a map fills a spectrum of whole blocks, each from its own inputs."""
    plane, blocks = _plane(first), prod(first.out_shape) // _plane(first) // block
    if first.bias.size != plane * block * blocks or -(-prod(first.in_shape) // plane // block) != blocks:
        return False
    rows, cols = first.entries.rows, first.entries.cols
    return bool(((rows % plane == cols % plane) & (rows // plane % blocks == cols // plane // block)).all())


def _returns(last: LinearMap, block: int) -> bool:
    plane, blocks = _plane(last), prod(last.in_shape) // _plane(last) // block
    if prod(last.in_shape) != plane * block * blocks or -(-last.bias.size // plane // block) != blocks:
        return False
    rows, cols = last.entries.rows, last.entries.cols
    return bool(((rows % plane == cols % plane) & (cols // plane % blocks == rows // plane // block)).all())


def _is_spectral(middle: LinearMap, block: int) -> bool:
    if len(middle.in_shape) != len(middle.out_shape):
        return False
    entries = middle.entries
    out, into = (
        np.floor_divide(places, prod(shape) // block) // 2
        for places, shape in ((entries.rows, middle.out_shape), (entries.cols, middle.in_shape))
    )
    whole = all(prod(shape) % block == 0 for shape in (middle.in_shape, middle.out_shape))
    return whole and bool((out == into).all())


def _block(entries: Index) -> int:
    """How many entries the fullest row or column has, when a block may be of that size; else 0."""
    most = int(entries.max(initial=0))
    return most if most >= 2 and most & (most - 1) == 0 else 0


def _plane(linear: LinearMap) -> int:
    """Elements of a plane that a map takes by themselves; 1 for vectors, and for planes that it flattens."""
    planar = len(linear.in_shape) == len(linear.out_shape) == 3 and linear.in_shape[1:] == linear.out_shape[1:]
    return prod(linear.in_shape[1:]) if planar else 1
