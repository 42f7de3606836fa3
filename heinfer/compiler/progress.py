"""How compiling gets on, for who looks: on a terminal or in a notebook."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from heinfer.tell import Tell, say_nothing


@contextmanager
def shown(name: str) -> Iterator[Tell]:
    """Show a line on stderr that says what is done now; call what this yields with it.

    Nothing is shown where nobody looks; the line goes when it is over, however it ends.
    """
    console = Console(stderr=True)
    if not (console.is_terminal or console.is_jupyter):
        yield say_nothing
        return
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(name, total=None)

        def tell(what: str, done: int, total: int) -> None:
            part = f", {done} of {total}" if total else ""
            progress.update(task, description=f"{name}: {escape(what)}{part}")

        yield tell
