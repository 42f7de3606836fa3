"""What it costs to ship fewer evaluation keys: the curve a user picks a point of with a limit on key bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from heinfer.circuit.passes.key_set import key_sets
from heinfer.costs.prediction import predict
from heinfer.costs.tables import HOISTED, cost_table
from heinfer.formats.bundle import Bundle
from heinfer.formats.frames import keys_length


@dataclass(frozen=True)
class KeyPoint:
    """Evaluation keys, relinearization included: how many, their bytes as a client sends them, the predicted time."""

    keys: int
    key_bytes: int
    milliseconds: float


def key_curve(bundle: Bundle, backend: str, costs: Path | None = None) -> Iterator[KeyPoint]:
    """Yield the bundle as it is, then with one key less at a time, until rotations can be composed no further.

    A limit on key bytes makes the search plan for fewer keys too, which may do better than a point of this curve.
    """
    typed = bundle.typed
    table = cost_table(typed.parameters.ring_degree, backend, costs)
    whole = predict(typed.circuit, typed.levels, table)
    others: float | None = None
    sets = key_sets(
        typed.circuit, typed.input_level, lambda level: table("rotation", level), lambda level: table(HOISTED, level)
    )
    for keys in sets:
        others = sum(whole) - keys.milliseconds if others is None else others
        size = keys_length(typed.parameters, keys.levels)
        yield KeyPoint(len(keys.levels), size, others + keys.milliseconds)
