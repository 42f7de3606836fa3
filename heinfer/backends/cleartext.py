"""The cleartext backend: slots in numpy, the noise model beside them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heinfer.brief import brief_repr
from heinfer.circuit.interpret import SlotBatch
from heinfer.circuit.noise import predict_noise
from heinfer.circuit.statistics import observe
from heinfer.circuit.typed import TypedCircuit


@dataclass(frozen=True, eq=False)
class Simulation:
    """What a run would give.

    Attributes:
        outputs: (batch, ciphertexts, slots), exact.
        deviation: (ciphertexts, slots) standard deviation of the error that the noise model predicts.
        warnings: one line for each layer in which a value left its declared bound.
    """

    outputs: SlotBatch
    deviation: NDArray[np.float64]
    warnings: tuple[str, ...]

    __repr__ = brief_repr


def simulate(typed: TypedCircuit, bounds: tuple[float, ...], inputs: SlotBatch) -> Simulation:
    """Run a circuit on slots of shape (batch, ciphertexts, slots) without keys.

    Args:
        bounds: declared bound on |slot| of every value.
    """
    circuit, seen = typed.circuit, observe(typed.circuit, inputs, 1.0)
    beyond: dict[str, tuple[float, float]] = {}
    for (_, op), most, bound in zip(circuit, seen.bounds, bounds, strict=True):
        if most > bound:
            beyond.setdefault(circuit.layer_name(op), (most, bound))
    warnings = tuple(
        f"{layer}: a value reaches {most:.3g}, its declared bound is {bound:.3g}: an encrypted run may wrap around"
        for layer, (most, bound) in beyond.items()
    )
    return Simulation(seen.outputs, np.sqrt(np.stack(predict_noise(typed, seen))), warnings)
