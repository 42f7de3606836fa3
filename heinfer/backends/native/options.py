"""How the native backend runs."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from pathlib import Path


@dataclass(frozen=True)
class NativeOptions:
    """What is not said by a circuit.

    Attributes:
        threads: that one evaluation is spread over.
        most_constant_bytes: that a model's constants may take, if they can; some are then made in every evaluation.
        constants_folder: where encoded constants are kept, and mapped from by all processes; None for nowhere.
        saves_constants: whether those that are not there are written there.
    """

    threads: int = 1
    most_constant_bytes: float = inf
    constants_folder: Path | None = None
    saves_constants: bool = True


DEFAULTS = NativeOptions()
