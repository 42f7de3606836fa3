"""torchvision, which heinfer does not need: as it is installed, with or without its compiled operators."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

import torch

from heinfer.errors import SettingError

_OPERATORS = ("nms", "qnms", "roi_align")
"""Of detection: only their names are looked for when torchvision is imported."""
_DECLARED: list[torch.library.Library] = []


@cache
def models() -> Any:
    """The module torchvision.models.

    Its compiled operators are of another build of torch where that is one for the CPU; no classifier has any of them.

    Raises:
        SettingError: when torchvision is not installed.
    """
    try:
        try:
            return import_module("torchvision.models")
        except RuntimeError:  # without its operators
            _declare()
            return import_module("torchvision.models")
    except ModuleNotFoundError as error:
        if error.name != "torchvision":
            raise
        raise SettingError(
            "torchvision is not installed: pip install --no-deps --target FOLDER torchvision==0.29.1, of the release "
            "that goes with your torch, and put FOLDER on PYTHONPATH"
        ) from error


def version() -> str:
    """Of torchvision."""
    models()
    return str(import_module("torchvision").__version__)


def _declare() -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    _DECLARED.append(library)  # else they are gone
    for operator in _OPERATORS:
        library.define(f"{operator}(Tensor x) -> Tensor")  # type: ignore[no-untyped-call]
