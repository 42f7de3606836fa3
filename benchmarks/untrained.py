"""Reference networks with random weights, compiled: what they take does not depend on the weights."""

from __future__ import annotations

import numpy as np
import torch

import heinfer
from heinfer.compiler.compile import CompiledModel
from heinfer.planner.planner import SEARCH, Planner
from heinfer.planner.requirements import Requirements
from heinfer.zoo import digits
from heinfer.zoo.data import MNIST, normalise
from heinfer.zoo.reference import preprocessing
from heinfer.zoo.registry import reference

SEED = 0


def compile_random(name: str, requirements: Requirements, planner: Planner = SEARCH) -> CompiledModel:
    """A network for MNIST with random weights, calibrated on the digits that ship with heinfer."""
    torch.manual_seed(SEED)
    images = normalise(digits().images).astype(np.float64)
    return heinfer.compile(
        reference(name).build(),
        images,
        name=name,
        preprocessing=preprocessing(MNIST),
        requirements=requirements,
        planner=planner,
    )
