"""A network small enough to be compiled in a test, for one image or for a batch."""

from __future__ import annotations

import numpy as np

from heinfer.compiler.compile import compile_network
from heinfer.compiler.model import CompiledModel
from heinfer.formats.manifest import Preprocessing
from heinfer.network.ir import Network, Node
from heinfer.network.operators import Convolution, Dense, Flatten, Polynomial
from heinfer.planner.planner import SEARCH, Planner
from heinfer.planner.requirements import DEFAULT, Requirements

_RNG = np.random.default_rng(0)

SHAPE = (1, 8, 8)
NETWORK = Network(
    SHAPE,
    (
        Node("conv", Convolution(_RNG.normal(size=(2, 1, 3, 3)), _RNG.normal(size=2), (2, 2), (1, 1))),
        Node("act", Polynomial(np.array([0.3, 0.2]), np.array([0.5, -0.4]), np.array([0.1, 0.2]))),
        Node("flatten", Flatten()),
        Node("fc", Dense(_RNG.normal(size=(3, 32)) / 6, _RNG.normal(size=3))),
    ),
)
PIXELS = Preprocessing(divisor=255, mean=(0.0,), std=(1.0,), low=0.0, high=1.0)
"""Float pixels as they are, in 0..1."""


def small_model(requirements: Requirements = DEFAULT, planner: Planner = SEARCH) -> CompiledModel:
    """The network, compiled."""
    calibration = np.random.default_rng(1).random((64, *SHAPE))
    return compile_network(
        NETWORK, calibration, name="small", preprocessing=PIXELS, requirements=requirements, planner=planner
    )
