"""How a training gets on, on the terminal."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import nn

from heinfer.zoo.data import Images
from heinfer.zoo.measure import evaluate


class TrainingBar:
    """A bar on stderr, when ``shown``: epoch, loss and, if images are held out, the accuracy on them."""

    def __init__(self, name: str, epochs: int, held_out: Images | None, shown: bool) -> None:
        self._name, self._epochs, self._held_out, self._shown = name, epochs, held_out, shown
        self._epoch, self._accuracy = 0, ""
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not shown,
        )
        self._task = self._progress.add_task(name)

    def __enter__(self) -> TrainingBar:
        self._progress.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.__exit__(kind, error, at)

    def on_batch(self, done: int, total: int, loss: float) -> None:
        """Show that ``done`` of ``total`` batches are through."""
        text = f"{self._name}  epoch {self._epoch + 1}/{self._epochs}  loss {loss:.3f}{self._accuracy}"
        self._progress.update(self._task, completed=done, total=total, description=text)

    def on_epoch(self, epoch: int, module: nn.Module) -> None:
        """Show that ``epoch`` epochs are through, and what they reached."""
        self._epoch = epoch
        if self._shown and self._held_out:
            accuracy = evaluate(module, self._held_out.images, self._held_out.labels)
            self._accuracy = f"  held-out {accuracy:.2%}"
