"""The cleartext backend: slots in numpy, the noise model beside them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heinfer.brief import brief_repr
from heinfer.circuit.annotate import annotate
from heinfer.circuit.interpret import SlotBatch, interpret
from heinfer.circuit.ir import Circuit
from heinfer.circuit.noise import predict_noise
from heinfer.circuit.statistics import observe
from heinfer.ckks.parameters import Parameters


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


def simulate(
    circuit: Circuit,
    parameters: Parameters,
    input_level: int,
    input_scale: float,
    bounds: tuple[float, ...],
    inputs: SlotBatch,
) -> Simulation:
    """Run a circuit on slots of shape (batch, ciphertexts, slots) without keys.

    Args:
        bounds: declared bound on |slot| of every value.
    """
    outputs: dict[int, SlotBatch] = {}
    beyond: dict[str, tuple[float, float]] = {}
    for number, op, value in interpret(circuit, inputs):
        most = float(np.abs(value).max())
        if most > bounds[number]:
            beyond.setdefault(circuit.layer_name(op), (most, bounds[number]))
        if number in circuit.outputs:
            outputs[number] = value
    types = annotate(circuit, parameters, input_level, input_scale)
    variances = predict_noise(circuit, types, observe(circuit, inputs, 1.0), parameters)
    warnings = tuple(
        f"{layer}: a value reaches {most:.3g}, its declared bound is {bound:.3g}: an encrypted run may wrap around"
        for layer, (most, bound) in beyond.items()
    )
    return Simulation(np.stack([outputs[o] for o in circuit.outputs], axis=1), np.sqrt(np.stack(variances)), warnings)
