"""The one layout type: where each element of a tensor sits in the slots of ciphertexts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
from numpy.typing import NDArray

from heinfer.brief import brief_repr
from heinfer.errors import LayoutError

ZERO = -1
"""The slot is known to hold zero."""
FREE = -2
"""The slot may hold anything: nobody may read it, and it must not leave the server."""

IndexArray = NDArray[np.int64]

_MOST_SHIFTS = 64
"""Rotations that are tried to align two tensors."""


@dataclass(frozen=True, eq=False)
class Layout:
    """A map from tensor index to (ciphertext, slot), held as its inverse.

    Attributes:
        shape: shape of the tensor, without a batch axis.
        index: (ciphertexts, slots) int64; the flat (row-major) tensor index that the slot holds,
            or ZERO, or FREE. An element may sit in several slots (replication).

    Raises:
        LayoutError: when an index is out of range or an element has no slot.
    """

    shape: tuple[int, ...]
    index: IndexArray

    __repr__ = brief_repr

    def _about(self) -> str:
        return f"{self.shape} in {self.ciphertexts} x {self.slots} slots"

    def __post_init__(self) -> None:
        index = np.array(self.index, dtype=np.int64)
        if index.ndim != 2 or 0 in index.shape:
            raise LayoutError(f"a layout's index has the shape (ciphertexts, slots), not {index.shape}")
        index.flags.writeable = False
        object.__setattr__(self, "index", index)
        if index.min() < FREE or index.max() >= self.size:
            raise LayoutError(f"a layout of shape {self.shape} may only hold elements 0..{self.size - 1}")
        seen = np.zeros(self.size, dtype=bool)
        seen[index[index >= 0]] = True
        missing = np.flatnonzero(~seen)
        if missing.size:
            raise LayoutError(f"element {int(missing[0])} of a tensor of shape {self.shape} has no slot")

    @property
    def size(self) -> int:
        """Number of elements of the tensor."""
        return prod(self.shape)

    @property
    def ciphertexts(self) -> int:
        return int(self.index.shape[0])

    @property
    def slots(self) -> int:
        return int(self.index.shape[1])

    @property
    def has_free_slots(self) -> bool:
        """Whether some slot may hold partial sums, which must not leave the server."""
        return bool((self.index == FREE).any())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Layout):
            return NotImplemented
        return self.shape == other.shape and np.array_equal(self.index, other.index)

    def __hash__(self) -> int:
        return hash((self.shape, self.index.tobytes()))

    @cached_property
    def period(self) -> int:
        """Smallest power of two p such that every ciphertext repeats after p slots."""
        period = self.slots
        while period % 2 == 0:
            half = period // 2
            if not np.array_equal(self.index[:, :half], self.index[:, half:period]):
                break
            period = half
        return period

    @cached_property
    def copies(self) -> IndexArray:
        """In how many slots each element sits, shape (size,)."""
        return np.bincount(self.index[self.index >= 0], minlength=self.size)

    def pack(self, tensor: NDArray[np.float64]) -> NDArray[np.float64]:
        """Place tensors of shape (..., *shape) into slots: (..., ciphertexts, slots); ZERO and FREE slots get 0."""
        tensor = np.asarray(tensor, dtype=np.float64)
        batch = tensor.shape[: tensor.ndim - len(self.shape)]
        if tensor.shape != (*batch, *self.shape):
            raise LayoutError(f"a tensor of shape {tensor.shape} does not fit a layout of shape {self.shape}")
        flat = tensor.reshape(*batch, self.size)
        padded = np.concatenate([flat, np.zeros((*batch, 1))], axis=-1)
        return padded[..., np.where(self.index >= 0, self.index, self.size)]

    def unpack(self, slots: NDArray[np.float64]) -> NDArray[np.float64]:
        """Read tensors back from (..., ciphertexts, slots), each element as the mean of its copies (noise averages)."""
        slots = np.asarray(slots, dtype=np.float64)
        if slots.shape[-2:] != self.index.shape:
            raise LayoutError(f"slots of shape {slots.shape} do not fit a layout of {self.index.shape}")
        held = self.index >= 0
        elements = self.index[held]
        flat = slots[..., held].reshape(-1, elements.size)
        sums = [np.bincount(elements, weights=row, minlength=self.size) for row in flat]
        return (np.array(sums).reshape(-1, self.size) / self.copies).reshape(*slots.shape[:-2], *self.shape)

    def shifted(self, offset: int) -> Layout:
        """The same layout with every ciphertext's content moved ``offset`` slots to the right, cyclically."""
        return Layout(self.shape, np.roll(self.index, offset, axis=1))

    def times(self, other: Layout) -> Layout | None:
        """Where the products of two tensors' elements are, slot by slot; None when one of them has no slot.

        A slot that holds zero in either is zero; one that holds different elements, or anything in either, is FREE.
        """
        if (self.shape, self.index.shape) != (other.shape, other.index.shape):
            return None
        is_zero = (self.index == ZERO) | (other.index == ZERO)
        index = np.where(is_zero, ZERO, np.where(self.index == other.index, self.index, FREE))
        held = np.bincount(index[index >= 0], minlength=self.size)
        return Layout(self.shape, index) if held.all() else None

    def aligned(self, other: Layout) -> tuple[int, Layout] | None:
        """By how many slots to rotate another tensor to the left so that it lies as this one does, and the product.

        The rotation that leaves most products, none where that is as good; None where no rotation leaves all.
        """
        if (self.shape, self.index.shape) != (other.shape, other.index.shape):
            return None
        pairs = (
            (np.flatnonzero(row == 0), np.flatnonzero(of_other == 0))
            for row, of_other in zip(self.index, other.index, strict=True)
        )
        shifts = np.concatenate([(there - here[:, None]).reshape(-1) for here, there in pairs]) % self.slots
        best: tuple[int, Layout] | None = None
        most = 0
        for shift in np.unique(np.append(0, shifts))[:_MOST_SHIFTS].tolist():
            product = self.times(other.shifted(-shift))
            held = int(np.count_nonzero(product.index >= 0)) if product else 0
            if product and held > most:
                best, most = (shift, product), held
        return best

    @classmethod
    def side_by_side(cls, layouts: Sequence[Layout]) -> Layout:
        """Several tensors, each in its own ciphertexts, as one of all their elements, those of the first tensor first.

        Returns:
            Layout: of shape (elements,).
        """
        if len(layouts) == 1:
            return layouts[0]
        first = np.cumsum([0, *(layout.size for layout in layouts)])
        parts = [
            np.where(layout.index >= 0, layout.index + offset, layout.index)
            for layout, offset in zip(layouts, first, strict=False)
        ]
        return cls((int(first[-1]),), np.concatenate(parts))

    def interleaved(self, batch: int) -> Layout:
        """The same layout for ``batch`` tensors at once: slot p of tensor b is slot p batch + b.

        A rotation by r slots becomes one by r batch and moves all of them alike, cyclically as before. The shape
        gets a batch axis in front, unless there is only one.
        """
        if batch == 1:
            return self
        index = np.repeat(self.index, batch, axis=1)
        tensor = np.tile(np.arange(batch), self.slots) * self.size
        return Layout((batch, *self.shape), np.where(index >= 0, index + tensor, index))
