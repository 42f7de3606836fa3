"""Residues packed to the bit width of their prime: how a row of words is written on the wire, and read again.

Bit k of a row's bytes is bit k % 8 of byte k // 8; residue i of a prime of b bits has the bits i b ... (i + 1) b - 1,
its lowest bit first. Thirty-two residues fill b words of 32 bits exactly, so a row is packed as columns of such groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from heinfer.formats.residues import Words

_Number = TypeVar("_Number", np.uint8, np.uint32)

_GROUP = 32
"""Residues that fill whole words of 32 bits, whatever the width; their number of columns is what the loops run over."""


def packed_size(ring_degree: int, primes: Sequence[int]) -> int:
    """Bytes of one row a prime; a ring degree is a multiple of 8, so every row ends with a byte."""
    return sum(ring_degree * prime.bit_length() // 8 for prime in primes)


def pack(words: Words, primes: Sequence[int]) -> bytes:
    """Pack rows (..., primes, N), each below its prime; `primes` repeats for every leading index."""
    rows = words.reshape(-1, words.shape[-1])
    return b"".join(
        _pack_row(row, primes[number % len(primes)].bit_length()).tobytes() for number, row in enumerate(rows)
    )


def unpack(data: memoryview, primes: Sequence[int], ring_degree: int) -> Words:
    """Unpack rows (rows, N) of as many primes from exactly their bytes; a residue may be above its prime."""
    rows = np.empty((len(primes), ring_degree), dtype=np.uint32)
    at = 0
    for row, prime in zip(rows, primes, strict=True):
        width = prime.bit_length()
        size = ring_degree * width // 8
        _unpack_row(np.frombuffer(data, np.uint8, size, at), width, row)
        at += size
    return rows


def _pack_row(row: NDArray[np.uint32], width: int) -> NDArray[np.uint8]:
    groups = -(-len(row) // _GROUP)
    # Column i of the residues goes to columns of the packed words: transposed, every step runs along memory.
    columns = _padded(row, groups * _GROUP).reshape(groups, _GROUP).T.copy()
    packed = np.zeros((width, groups), dtype="<u4")
    for number, column in enumerate(columns):
        word, shift = divmod(number * width, _GROUP)
        packed[word] |= column << np.uint32(shift)
        if shift + width > _GROUP:
            packed[word + 1] |= column >> np.uint32(_GROUP - shift)
    return packed.T.copy().view(np.uint8).reshape(-1)[: len(row) * width // 8]


def _unpack_row(data: NDArray[np.uint8], width: int, row: NDArray[np.uint32]) -> None:
    groups = -(-len(row) // _GROUP)
    packed = _padded(data, groups * 4 * width).view("<u4").reshape(groups, width).T.copy()
    columns = np.empty((_GROUP, groups), dtype=np.uint32)
    mask = np.uint32((1 << width) - 1)
    for number in range(_GROUP):
        word, shift = divmod(number * width, _GROUP)
        column = packed[word] >> np.uint32(shift)
        if shift + width > _GROUP:
            column |= packed[word + 1] << np.uint32(_GROUP - shift)
        np.bitwise_and(column, mask, out=columns[number])
    row[:] = columns.T.reshape(-1)[: len(row)]


def _padded(row: NDArray[_Number], length: int) -> NDArray[_Number]:
    """The row, of `length` entries; rings of fewer than 32 coefficients exist only in tests."""
    return row if len(row) == length else np.concatenate([row, np.zeros(length - len(row), dtype=row.dtype)])
