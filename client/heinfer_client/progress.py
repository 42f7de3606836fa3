"""Progress bars for what takes long: making keys and sending them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from heinfer.system import Renewed

Advance = Callable[[int], None]


class _Display(Renewed):
    """The bars of all clients of this process, one below the other: only one thing draws on a terminal."""

    def begin(self) -> None:
        self._lock = Lock()
        self._progress: Progress | None = None

    def add(self, console: Console, description: str, total: int) -> tuple[Progress, TaskID]:
        with self._lock:
            if self._progress is None:
                self._progress = Progress(
                    TextColumn("{task.description}"),
                    BarColumn(),
                    TextColumn("{task.percentage:>3.0f} %"),
                    TimeRemainingColumn(),
                    console=console,
                    transient=True,
                )
                self._progress.start()
            return self._progress, self._progress.add_task(description, total=total)

    def remove(self, progress: Progress, task: TaskID) -> None:
        with self._lock:
            if progress is not self._progress:  # it is the parent's
                return
            progress.remove_task(task)
            if not progress.task_ids:
                progress.stop()
                self._progress = None


_DISPLAY = _Display()


class Bars:
    """Shows bars on standard error while a terminal is there, if wanted at all."""

    def __init__(self, shown: bool) -> None:
        self._shown = shown

    @contextmanager
    def bar(self, description: str, total: int) -> Iterator[Advance]:
        """Show a bar; call what this yields with every amount done."""
        if not self._shown or not description or not (console := Console(stderr=True)).is_terminal:
            yield lambda _amount: None
            return
        progress, task = _DISPLAY.add(console, description, total)
        try:
            yield lambda amount: progress.advance(task, amount)
        finally:
            _DISPLAY.remove(progress, task)
