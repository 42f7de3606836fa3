"""A small manifest, circuit and bundle, consistent with each other."""

from __future__ import annotations

from typing import Any

import numpy as np

from heinfer.circuit.ir import Circuit, Kind, Layer, Op
from heinfer.circuit.typed import TypedCircuit
from heinfer.ckks.parameters import Parameters
from heinfer.formats.bundle import Bundle
from heinfer.formats.manifest import (
    InputPart,
    KeysPart,
    LayoutPart,
    Manifest,
    OutputPart,
    ParametersPart,
    Preprocessing,
)
from heinfer.layout.layout import ZERO, Layout

PARAMETERS = Parameters.create(4096, [28, 26], 30)
INPUT_SCALE = 2.0**24


def sample_circuit() -> Circuit:
    """(rotate(x * c0, 3) + rotate(x * c0, 5) + c1)^2, rescaled."""
    rng = np.random.default_rng(0)
    slots = PARAMETERS.slots
    constants = (rng.normal(size=4)[rng.integers(4, size=slots)], np.array([-0.0]))
    ops = (
        Op(Kind.INPUT, input=0),
        Op(Kind.MULTIPLY_PLAIN, (0,), constant=0, scale=1.0, layer=0),
        Op(Kind.ROTATE, (1,), step=3, hoist=0, layer=0),
        Op(Kind.ROTATE, (1,), step=5, hoist=0, layer=0),
        Op(Kind.ADD, (2, 3), layer=0),
        Op(Kind.ADD_PLAIN, (4,), constant=1, layer=0),
        Op(Kind.MULTIPLY, (5, 5), layer=1),
        Op(Kind.RELINEARIZE, (6,), layer=1),
        Op(Kind.RESCALE, (7,)),
    )
    layers = (Layer("conv1", "diagonals", "dense", "dense"), Layer("act1"))
    return Circuit(slots, ops, (8,), constants, layers)


def sample_manifest(**changes: Any) -> Manifest:
    index = np.full((1, PARAMETERS.slots), ZERO)
    index[0, :4], index[0, 16:20] = range(4), range(4)
    scores = np.full((1, PARAMETERS.slots), ZERO)
    scores[0, :2] = range(2)
    image = InputPart(
        name="image",
        preprocessing=Preprocessing(divisor=255, mean=(0.25,), std=(0.5,), low=-0.5, high=1.5),
        layout=LayoutPart.from_layout(Layout((1, 2, 2), index)),
        level=1,
        scale=INPUT_SCALE,
    )
    result = TypedCircuit(sample_circuit(), PARAMETERS, image.level, image.scale).types[-1]
    parts: dict[str, Any] = {
        "name": "sample",
        "model_version": "1",
        "parameters": ParametersPart.of(PARAMETERS),
        "inputs": (image,),
        "outputs": (
            OutputPart(
                name="scores",
                kind="classification",
                layout=LayoutPart.from_layout(Layout((2,), scores)),
                level=result.level,
                scale=result.scale,
                exponent=0,
                range=1.0,
                labels=("a", "b"),
            ),
        ),
        "key_sets": (KeysPart.of({0: 1, 3: 1, 5: 1}),),
    }
    return Manifest(**{**parts, **changes})


def sample_bundle() -> Bundle:
    circuit = sample_circuit()
    bounds = tuple(float(number) for number in range(len(circuit.ops)))
    return Bundle(sample_manifest(), circuit, bounds, {"source": "a test", "accuracy": "0.5"})
