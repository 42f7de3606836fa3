"""Pictures unlike any that a model was trained on, by a rule that was written before the first of them was drawn.

Picture n of a shape is drawn by a generator seeded with n, and is of the family that comes next in turn:

- constant: each channel a level, uniform in 0..255;
- stripes: along rows, columns or a diagonal, 1..half the height wide, in two constants;
- checkers: of squares 1..half the height wide, in two constants;
- noise: every value uniform within an amplitude about 127.5, at eight amplitudes in turn, the last one all of 0..255;
- colours: stripes or checkers in two constants whose channels are all 0 or 255.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Shape = tuple[int, ...]

FAMILIES = ("constant", "stripes", "checkers", "noise", "colours")
AMPLITUDES = 8


def pictures(shape: Shape, count: int) -> Iterator[Picture]:
    """The first pictures of a shape (channels, height, width)."""
    return (_picture(shape, number) for number in range(count))


def _picture(shape: Shape, number: int) -> Picture:
    rng = np.random.default_rng(number)
    turn, family = divmod(number, len(FAMILIES))
    match FAMILIES[family]:
        case "constant":
            return np.broadcast_to(_constant(shape, rng), shape).copy()
        case "stripes":
            return _in_two(_stripes(shape, rng), _constant(shape, rng), _constant(shape, rng))
        case "checkers":
            return _in_two(_checkers(shape, rng), _constant(shape, rng), _constant(shape, rng))
        case "noise":
            amplitude = 127.5 * (turn % AMPLITUDES + 1) / AMPLITUDES
            return np.rint(127.5 + rng.uniform(-amplitude, amplitude, shape)).astype(np.uint8)
        case _:
            pattern = (_stripes if turn % 2 else _checkers)(shape, rng)
            return _in_two(pattern, _extreme(shape, rng), _extreme(shape, rng))


def _constant(shape: Shape, rng: np.random.Generator) -> Picture:
    return rng.integers(0, 256, (shape[0], 1, 1)).astype(np.uint8)


def _extreme(shape: Shape, rng: np.random.Generator) -> Picture:
    return (rng.integers(0, 2, (shape[0], 1, 1)) * 255).astype(np.uint8)


def _stripes(shape: Shape, rng: np.random.Generator) -> NDArray[np.int64]:
    y, x = np.indices(shape[1:])
    along = (y, x, x + y)[rng.integers(3)]
    stripes: NDArray[np.int64] = along // _width(shape, rng) % 2
    return stripes


def _checkers(shape: Shape, rng: np.random.Generator) -> NDArray[np.int64]:
    y, x = np.indices(shape[1:]) // _width(shape, rng)
    checkers: NDArray[np.int64] = (x + y) % 2
    return checkers


def _width(shape: Shape, rng: np.random.Generator) -> int:
    return int(rng.integers(1, shape[1] // 2 + 1))


def _in_two(pattern: NDArray[np.int64], one: Picture, other: Picture) -> Picture:
    return np.where(pattern, one, other)
