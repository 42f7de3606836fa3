"""Which loaded keys stay in a worker when others are loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping


def with_room(loaded: Mapping[str, str], tenant: str | None, most: int) -> set[str]:
    """Ids of the loaded keys that stay when a tenant's are loaded as well, of `most` at most.

    Who has most of them gives, its least recently used first: nobody pushes out those who have less. So one who comes
    with many sets in rotation pushes out its own.

    Args:
        loaded: whose each is, by id; the least recently used first.
    """
    left = dict(loaded)
    numbers = Counter(left.values())
    numbers[tenant or ""] += 1
    while left and len(left) >= most:
        gives = max(left, key=lambda key_id: numbers[left[key_id]])  # among equals the first, used longest ago
        numbers[left.pop(gives)] -= 1
    return set(left)
