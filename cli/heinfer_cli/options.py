"""Options that several verbs have."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from heinfer.errors import SettingError

DataDir = Annotated[
    Path | None,
    typer.Option(envvar="HEINFER_DATA_DIR", help="Folder with mnist/*.gz, cifar10/*.xz; else they are fetched."),
]
Costs = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Cost tables that `heinfer calibrate` wrote.", show_default="the shipped ones"),
]

CostsOf = Annotated[
    str | None,
    typer.Option(
        "--backend",
        metavar="tenseal|native",
        help="Backend whose cost tables plan and predict.",
        show_default="plan by tenseal's, predict for the one that runs here",
    ),
]

_BYTES = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9}


def parse_bytes(text: str) -> float:
    """Bytes from a number with or without kB, MB or GB; SettingError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) *([kmg]b)?", text.strip(), re.ASCII | re.IGNORECASE)
    if not found:
        raise SettingError(f"{text!r} is no number of bytes: write it like 300000, 300kB, 22.5MB or 1GB")
    return float(found[1]) * _BYTES[(found[2] or "").lower()]
