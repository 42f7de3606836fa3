"""Residues packed to the bit width of their prime: how a row of words is written on the wire, and read again.

Bit k of a row's bytes is bit k % 8 of byte k // 8; residue i of a prime of b bits has the bits i b ... (i + 1) b - 1,
its lowest bit first. Every row ends with a byte, so that rows of one width are packed as if they were one. Thirty-two
residues fill b words of 32 bits exactly, so a row is packed as columns of such groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import cycle, groupby, islice
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
        _pack_row(rows[start:end].reshape(-1), width).tobytes()
        for width, start, end in _runs(islice(cycle(primes), len(rows)))
    )


def unpack(data: memoryview, primes: Sequence[int], ring_degree: int) -> Words:
    """Unpack rows (rows, N) of as many primes from exactly their bytes; a residue may be above its prime."""
    rows = np.empty((len(primes), ring_degree), dtype=np.uint32)
    at = 0
    for width, start, end in _runs(primes):
        row = rows[start:end].reshape(-1)
        size = len(row) * width // 8
        _unpack_row(np.frombuffer(data, np.uint8, size, at), width, row)
        at += size
    return rows


def _runs(primes: Iterable[int]) -> Iterator[tuple[int, int, int]]:
    """Width, first row and end of all rows of one width that follow each other."""
    end = 0
    for width, run in groupby(primes, key=int.bit_length):
        start, end = end, end + sum(1 for _ in run)
        yield width, start, end


def _pack_row(row: NDArray[np.uint32], width: int) -> NDArray[np.uint8]:
    groups = -(-len(row) // _GROUP)
    # Column i of the residues goes to columns of the packed words: transposed, every step runs along memory.
    columns = _padded(row, groups * _GROUP).reshape(groups, _GROUP).T.copy()
    packed = np.zeros((width, groups), dtype="<u4")
    for number, column in enumerate(columns):
        word, shift = divmod(number * width, _GROUP)
        packed[word] |= column << np.uint32(shift)
        if shift + width > _GROUP:
            packed[word + 1] = column >> np.uint32(_GROUP - shift)
    return packed.T.copy().view(np.uint8).reshape(-1)[: len(row) * width // 8]


def _unpack_row(data: NDArray[np.uint8], width: int, row: NDArray[np.uint32]) -> None:
    groups = -(-len(row) // _GROUP)
    packed = _padded(data, groups * 4 * width).view("<u4").reshape(groups, width).T.copy()
    columns = np.empty((_GROUP, groups), dtype=np.uint32)
    for number, column in enumerate(columns):
        word, shift = divmod(number * width, _GROUP)
        np.right_shift(packed[word], np.uint32(shift), out=column)
        if shift + width > _GROUP:
            columns[number] |= packed[word + 1] << np.uint32(_GROUP - shift)
    columns &= np.uint32((1 << width) - 1)
    row[:] = columns.T.reshape(-1)[: len(row)]


def _padded(row: NDArray[_Number], length: int) -> NDArray[_Number]:
    """The row, of `length` entries; rings of fewer than 32 coefficients exist only in tests."""
    return row if len(row) == length else np.concatenate([row, np.zeros(length - len(row), dtype=row.dtype)])
