"""Named tensors that are one: flattened and one after the other, which is all that a network and its circuit know."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from heinfer.brief import brief_repr
from heinfer.errors import LayoutError
from heinfer.layout.layout import ZERO, Layout


@dataclass(frozen=True)
class TensorPart:
    """One input of a network with several, or one output of them, within the concatenation (n,) of all.

    Attributes:
        name: as users say it.
        shape: of its own.
        start: place of its first element.
    """

    name: str
    shape: tuple[int, ...]
    start: int = 0

    __repr__ = brief_repr

    @property
    def size(self) -> int:
        """Number of its elements."""
        return prod(self.shape)

    @property
    def elements(self) -> slice:
        """Where it is on the axis of all elements."""
        return slice(self.start, self.start + self.size)

    def of(self, whole: NDArray[np.float64]) -> NDArray[np.float64]:
        """This part of concatenations (..., n), in its own shape: (..., *shape)."""
        return whole[..., self.elements].reshape(*whole.shape[:-1], *self.shape)


def parts_of(shapes: Iterable[tuple[str, tuple[int, ...]]]) -> tuple[TensorPart, ...]:
    """Parts in the order of a concatenation, from the name and the shape of each."""
    found: list[TensorPart] = []
    start = 0
    for name, shape in shapes:
        found.append(TensorPart(name, shape, start))
        start += found[-1].size
    return tuple(found)


def joined(layouts: Sequence[Layout], batch: int = 1) -> Layout:
    """The layout of a concatenation (n,) from those of its parts, which are in the same ciphertexts.

    With a batch of several each shape begins with it: (batch, n) from (batch, *shape). A layout alone stays as it is.

    Raises:
        LayoutError: when they are of other ciphertexts, or two hold something in the same slot.
    """
    if len(layouts) == 1:
        return layouts[0]
    size = sum(layout.size for layout in layouts) // batch
    index = np.full(layouts[0].index.shape, ZERO)
    start = 0
    for layout in layouts:
        if layout.index.shape != index.shape:
            raise LayoutError("the layouts must be of the same ciphertexts")
        own = layout.size // batch
        held = layout.index >= 0
        if (index[held] != ZERO).any():
            raise LayoutError("two of the layouts name the same slot")
        place, element = np.divmod(layout.index[held], own)
        index[held] = place * size + start + element
        start += own
    return Layout((size,) if batch == 1 else (batch, size), index)


def split(layout: Layout, parts: Sequence[TensorPart], batch: int = 1) -> list[Layout]:
    """The layout of each part, from that of their concatenation: what :func:`joined` makes one of again."""
    if len(parts) == 1:
        return [layout]
    size = layout.size // batch
    place, element = np.divmod(layout.index, size)
    found = []
    for part in parts:
        is_own = (layout.index >= 0) & (element >= part.start) & (element < part.elements.stop)
        index = np.where(is_own, place * part.size + element - part.start, np.minimum(layout.index, ZERO))
        found.append(Layout(part.shape if batch == 1 else (batch, *part.shape), index))
    return found
