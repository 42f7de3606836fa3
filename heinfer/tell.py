"""How long work says how far it is, to whoever listens."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Tell: TypeAlias = Callable[[str, int, int], None]
"""Told what is being done, how many parts of it are done, and how many there are."""


def say_nothing(_what: str, _done: int, _total: int) -> None:
    """To nobody."""
