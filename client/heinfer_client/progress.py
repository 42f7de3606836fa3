"""Progress bars for what takes long: making keys and sending them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

Advance = Callable[[int], None]


class Bars:
    """Shows bars on standard error while a terminal is there, if wanted at all."""

    def __init__(self, shown: bool) -> None:
        self._shown = shown

    @contextmanager
    def bar(self, description: str, total: int) -> Iterator[Advance]:
        """Show a bar; call what this yields with every amount done."""
        console = Console(stderr=True)
        if not self._shown or not description or not console.is_terminal:
            yield lambda _amount: None
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task(description, total=total)
            yield lambda amount: progress.advance(task, amount)
