"""Ranks of a reference network for a budget, and what the compiler then says of it."""

import numpy as np
import pytest
import torch

import heinfer
from heinfer.convert import factorize
from heinfer.formats.manifest import Preprocessing
from heinfer.nn import FFConv2d
from heinfer.zoo.networks import mnist_plain

pytestmark = pytest.mark.slow

PIXELS = Preprocessing(divisor=255, mean=(0,), std=(1,), low=0, high=1)


def test_a_reference_network_keeps_to_its_budget_when_it_is_compiled() -> None:
    torch.manual_seed(0)
    module = mnist_plain().eval()
    images = np.random.default_rng(0).random((32, 1, 28, 28))
    loose, tight = (factorize(module, budget=budget, calibration=images) for budget in (205.0, 175.0))
    for module_within, report in (loose, tight):
        assert report.ranks.keys() == {"conv2"}
        assert isinstance(module_within.conv2, FFConv2d)
        assert report.milliseconds <= report.budget.milliseconds < report.milliseconds_before
        model = heinfer.compile(module_within, images, name="within", preprocessing=PIXELS)
        assert abs(model.report.predicted["tenseal"] - report.milliseconds) < 1e-6  # the table that ranks are chosen by
    assert 0 < loose.report.loss < tight.report.loss < 1
    assert loose.report.ranks["conv2"] > tight.report.ranks["conv2"]
