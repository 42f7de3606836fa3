"""Options that every benchmark has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[Path, typer.Option("--json", help="File for the records.")]
Network = Annotated[str, typer.Option("--network", help="Model that ships with heinfer, or a bundle.")]
