"""Options that several verbs have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DataDir = Annotated[
    Path | None, typer.Option(envvar="HEINFER_DATA_DIR", help="Folder with mnist/*.gz; without it they are fetched.")
]
