"""Options that every benchmark has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[Path, typer.Option("--json", help="File for the records.")]
Backend = Annotated[
    str | None,
    typer.Option("--backend", help="native or tenseal.", show_default="native where it is installed"),
]
Network = Annotated[str, typer.Option("--network", help="Model that ships with heinfer, or a bundle.")]
