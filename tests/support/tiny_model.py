"""Compiled models small enough to run in a test, at parameters that are 128-bit secure.

An image of 4 x 4 pixels, the scores being weighted sums of squares over its four columns.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from heinfer.circuit.ir import Circuit, Kind, Op
from heinfer.circuit.passes.interleaving import interleave
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

TINY = Parameters.create(4096, [28, 24, 24], 30)
WIDE = Parameters.create(8192, [28, 26, 26, 26], 30)
DEEP = Parameters.create(16384, [28] + 9 * [26], 30)  # a rotation takes milliseconds on every backend

SHAPE = (1, 4, 4)
LABELS = ("a", "b", "c", "d")
PREPROCESSING = Preprocessing(divisor=255.0, mean=(0.25,), std=(0.5,), low=-0.5, high=1.5)
WEIGHTS = np.array([1.0, -0.75, 0.5, 0.875])
FACTOR = 40
INPUT_SCALE = 1.7e7  # no power of two, for which the neighbour below is half as far as the one above
OUTPUT_SCALE = 2.0**22


def cleartext_scores(
    image: np.ndarray, weights: np.ndarray = WEIGHTS, preprocessing: Preprocessing = PREPROCESSING
) -> np.ndarray:
    """What the model computes of an image of float pixels in 0..1."""
    x = np.clip((image.reshape(SHAPE[1:]) - preprocessing.mean[0]) / preprocessing.std[0], -0.5, 1.5)
    return (x**2).sum(axis=0) * weights


def tiny_bundle(
    name: str = "tiny",
    *,
    parameters: Parameters = TINY,
    weights: np.ndarray = WEIGHTS,
    idle_rotations: int = 0,
    batch: int = 1,
    version: str = "1",
    labels: tuple[str, ...] = LABELS,
    preprocessing: Preprocessing = PREPROCESSING,
    input_scale: float = INPUT_SCALE,
) -> Bundle:
    """A compiled model; `idle_rotations` by the period of its content change nothing but the time it takes."""
    circuit = _circuit(parameters, parameters.slots // batch, weights, idle_rotations, input_scale)
    circuit = interleave(circuit, batch)
    typed = TypedCircuit(circuit, parameters, parameters.top_level, input_scale)
    output = typed.output_types[0]
    slots = np.arange(parameters.slots // batch)[None]
    manifest = Manifest(
        name=name,
        model_version=version,
        parameters=ParametersPart.of(parameters),
        batch=batch,
        inputs=(
            InputPart(
                name="image",
                preprocessing=preprocessing,
                layout=LayoutPart.from_layout(Layout(SHAPE, slots % 16).interleaved(batch)),
                level=parameters.top_level,
                scale=input_scale,
            ),
        ),
        outputs=(
            OutputPart(
                name="scores",
                kind="classification",
                layout=LayoutPart.from_layout(Layout((4,), slots % 4).interleaved(batch)),
                level=output.level,
                scale=output.scale,
                exponent=0,
                range=16.0,
                labels=labels,
            ),
        ),
        key_sets=(KeysPart.of(typed.key_levels),),
    )
    return Bundle(manifest, circuit, (16.0,) * len(circuit.ops), {"network": "columns"})


def overflowing_bundle(name: str, *, batch: int = 1) -> Bundle:
    """The model with weights that are FACTOR times as large, and a zero in place of its last score.

    Its parameters represent up to 32: bright images give more than that, dark ones do not.
    """
    made = tiny_bundle(name, weights=FACTOR * WEIGHTS * (np.arange(4) < 3), batch=batch)
    slots = np.arange(made.manifest.output.layout.slots // batch)[None] % 4
    layout = Layout((3,), np.where(slots < 3, slots, ZERO)).interleaved(batch)
    changes = {"layout": LayoutPart.from_layout(layout), "labels": LABELS[:3]}
    output = made.manifest.output.model_copy(update=changes)
    return replace(made, manifest=made.manifest.model_copy(update={"outputs": (output,)}))


def _circuit(
    parameters: Parameters, slots: int, weights: np.ndarray, idle_rotations: int, input_scale: float
) -> Circuit:
    top = parameters.top_level
    squared_scale = input_scale**2 / parameters.data_primes[top]
    ops = [
        Op(Kind.INPUT, input=0),
        Op(Kind.MULTIPLY, (0, 0)),
        Op(Kind.RELINEARIZE, (1,)),
        Op(Kind.RESCALE, (2,)),
        Op(Kind.ROTATE, (3,), step=8),
        Op(Kind.ADD, (3, 4)),
        Op(Kind.ROTATE, (5,), step=4),
        Op(Kind.ADD, (5, 6)),
    ]
    ops += [Op(Kind.ROTATE, (len(ops) - 1 + number,), step=16) for number in range(idle_rotations)]
    weight_scale = OUTPUT_SCALE * parameters.data_primes[top - 1] / squared_scale
    ops += [
        Op(Kind.MULTIPLY_PLAIN, (len(ops) - 1,), constant=0, scale=weight_scale),
        Op(Kind.RESCALE, (len(ops),)),
    ]
    constant = np.tile(weights, slots // 4)
    return Circuit(slots, tuple(ops), (len(ops) - 1,), (constant,))
