"""Joins of index arrays: the few relational steps from which maps and incidences are built."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]


def distinct(values: Index) -> Index:
    """Distinct values, ascending (sorting beats numpy's hashing here)."""
    ordered = np.sort(values)
    return ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])] if ordered.size else ordered


def distinct_columns(first: Index, second: Index, third: Index) -> Index:
    """Distinct triples as columns, ascending."""
    b, c = int(second.max(initial=0)) + 1, int(third.max(initial=0)) + 1
    rest, last = np.divmod(distinct((first * b + second) * c + third), c)
    return np.stack([*np.divmod(rest, b), last])


def starts(ordered: Index) -> Index:
    """Where each run of equal values begins."""
    return np.flatnonzero(np.append(True, np.diff(ordered) != 0)) if ordered.size else ordered


def expand(first: Index, last: Index) -> tuple[Index, Index]:
    """For every i all j in first[i]..last[i]-1: the arrays of i and of j."""
    lengths = last - first
    owner = np.repeat(np.arange(first.size), lengths)
    within = np.arange(owner.size) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return owner, np.repeat(first, lengths) + within


def stable_order(numbers: Index, count: int) -> Index:
    """What sorts numbers below a count, equals in their order: by 16 bits at a time, which numpy need not compare."""
    order = np.argsort(numbers.astype(np.uint16), kind="stable")
    if count > 1 << 16:
        order = order[np.argsort((numbers >> 16).astype(np.uint16)[order], kind="stable")]
    return order
