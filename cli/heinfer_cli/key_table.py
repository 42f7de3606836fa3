"""The key curve, for people."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from heinfer.compiler.key_curve import KeyPoint


def print_key_curve(points: Iterable[KeyPoint], console: Console) -> None:
    """Print what fewer evaluation keys cost."""
    table = Table(
        title="fewer evaluation keys, by composing rotations",
        caption="heinfer compile --max-key-bytes picks a row, or a better plan where there is one",
    )
    for name in ("keys", "MB", "ms", "to the fastest"):
        table.add_column(name, justify="right")
    fastest: float | None = None
    for point in points:
        fastest = fastest or point.milliseconds
        ratio = f"{point.milliseconds / fastest:.2f}x"
        table.add_row(str(point.keys), f"{point.key_bytes / 1e6:.1f}", f"{point.milliseconds:.0f}", ratio)
    console.print(table, "")
