"""Planes that lie alike: in a layout the elements of a plane mostly move together, from channel to channel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from heinfer.network.join import Index, starts
from heinfer.network.stencil import Planes, Stencil

_LOT = 4_000_000
"""Pairs of channels looked at together: bounds the memory."""
_BINS = 4_000_000
"""Codes that are counted in an array; where more are possible, they are sorted."""


@dataclass(frozen=True, eq=False)
class Sheets:
    """The planes of a tensor, each as one of a few sheets that is moved as a whole.

    Attributes:
        sheet: (planes,) number of each one's sheet.
        moved: (planes,) by how many slots.
        pattern: (sheets, elements) number of the pattern of every element's places; -1 where it has none.
        slot: (sheets, elements) where these are, modulo m.
    """

    sheet: Index
    moved: Index
    pattern: Index
    slot: Index

    @staticmethod
    def of(pattern: Index, moved: Index, planes: Planes, modulus: int) -> Sheets:
        """Planes whose elements have places of certain patterns, moved by so much."""
        pattern, moved = pattern.reshape(planes[0], -1), moved.reshape(planes[0], -1)
        anchor = moved[np.arange(planes[0]), (pattern >= 0).argmax(axis=1)]
        codes = np.where(pattern >= 0, pattern * modulus + (moved - anchor[:, None]) % modulus, -1)
        if codes.shape[1] == 1:
            kinds, sheet = np.unique(codes, return_inverse=True)
            kinds = kinds[:, None]
        else:
            kinds, sheet = np.unique(codes, axis=0, return_inverse=True)
        return Sheets(sheet.reshape(-1), anchor, *np.divmod(kinds, modulus))

    @property
    def sheets(self) -> int:
        return len(self.pattern)


@dataclass(frozen=True, eq=False)
class Counted:
    """Entries of a stencil by the patterns that they lead between, at like distances.

    Attributes:
        out, into: number of the pattern of the output's places, and of the input's.
        distance: slots from the one to the other, modulo m.
        weight: how many entries there are.
    """

    out: Index
    into: Index
    distance: Index
    weight: Index


def counted(stencil: Stencil, outputs: Sheets, inputs: Sheets, modulus: int) -> Iterator[Counted]:
    """Count the entries of a stencil: pairs of channels by their sheets and distance, times pairs of elements.

    Entries of elements without places are left out.
    """
    _, ys, xs = stencil.relations
    pair, distance, count = _by_sheets(stencil, outputs, inputs, modulus)
    out, into = np.divmod(pair, inputs.sheets)
    if ys.size == xs.size == outputs.pattern.shape[1] == inputs.pattern.shape[1] == 1:
        yield _present(Counted(outputs.pattern[out, 0], inputs.pattern[into, 0], distance, count))
        return
    written = (ys.out[:, None] * xs.outputs + xs.out).reshape(-1)
    read = (ys.into[:, None] * xs.inputs + xs.into).reshape(-1)
    first = starts(pair).tolist()
    for start, end in zip(first, [*first[1:], pair.size], strict=True):
        one, other = out[start], into[start]
        patterns = outputs.pattern[one, written], inputs.pattern[other, read]
        between = (inputs.slot[other, read] - outputs.slot[one, written]) % modulus
        kinds = _present(Counted(*patterns, between, np.ones(written.size, dtype=np.int64)))
        kinds = _added(kinds, int(inputs.pattern.max()) + 1, modulus)
        spread = (distance[start:end, None] + kinds.distance) % modulus
        weight = count[start:end, None] * kinds.weight
        patterns = np.broadcast_to(kinds.out, spread.shape), np.broadcast_to(kinds.into, spread.shape)
        yield Counted(patterns[0].reshape(-1), patterns[1].reshape(-1), spread.reshape(-1), weight.reshape(-1))


def _by_sheets(stencil: Stencil, outputs: Sheets, inputs: Sheets, modulus: int) -> tuple[Index, Index, Index]:
    """Pairs of channels: the pair of their sheets (output's * sheets + input's), their distance, how many; sorted."""
    channels, of_codes = stencil.channels, outputs.sheets * inputs.sheets * modulus
    found: list[Index] = []
    counts: list[Index] = []
    total = np.zeros(of_codes if of_codes <= _BINS else 0, dtype=np.int64)
    for start in range(0, channels.size, _LOT):
        out, into = channels.out[start : start + _LOT], channels.into[start : start + _LOT]
        codes = outputs.sheet[out] * inputs.sheets + inputs.sheet[into]
        codes *= modulus
        codes += (inputs.moved[into] - outputs.moved[out]) % modulus
        if total.size:
            total += np.bincount(codes, minlength=of_codes)
        else:
            one, count = np.unique(codes, return_counts=True)
            found, counts = [*found, one], [*counts, count]
    if total.size:
        found, counts = [np.flatnonzero(total)], [total[total > 0]]
    codes, count = summed(np.concatenate(found), np.concatenate(counts))
    return *np.divmod(codes, modulus), count


def _present(kinds: Counted) -> Counted:
    kept = (kinds.out >= 0) & (kinds.into >= 0)
    return Counted(kinds.out[kept], kinds.into[kept], kinds.distance[kept], kinds.weight[kept])


def _added(kinds: Counted, patterns: int, modulus: int) -> Counted:
    """Equal ones as one."""
    codes, weight = summed((kinds.out * patterns + kinds.into) * modulus + kinds.distance, kinds.weight)
    pair, distance = np.divmod(codes, modulus)
    return Counted(*np.divmod(pair, patterns), distance, weight)


def summed(codes: Index, weights: Index) -> tuple[Index, Index]:
    """Distinct codes, ascending, and the sum of the weights of each."""
    order = np.argsort(codes, kind="stable")
    codes = codes[order]
    first = starts(codes)
    return codes[first], np.add.reduceat(weights[order], first) if codes.size else weights
