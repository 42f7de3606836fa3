"""Taking the calls of a graph: what is not read again is not kept, and memory does not grow with depth."""

import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from heinfer.errors import UnsupportedOperatorError
from heinfer.frontend import trace
from heinfer.frontend.calls import Calls
from heinfer.frontend.exported import BATCH, exported, replay
from heinfer.frontend.recorder import Recorder
from heinfer.frontend.table import OPERATORS
from heinfer.frontend.values import Value


class DenseBlock(nn.Module):
    """Every layer reads all before it, normalised: torchvision's DenseNet in small."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        widths = range(2, 2 + layers)
        self.norms = nn.ModuleList(nn.BatchNorm2d(n) for n in widths)
        self.layers = nn.ModuleList(nn.Conv2d(n, 1, 1) for n in widths)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = torch.cat((x, layer(norm(x).square())), 1)
        return x


class Watched(Calls):
    """Counts the values that are alive at every call."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__(recorder, OPERATORS)
        self.made: list[weakref.ref[Value]] = []
        self.alive: list[int] = []

    def call(self, *args: Any, **options: Any) -> Any:
        result = super().call(*args, **options)
        self.made.append(weakref.ref(result))
        self.alive.append(sum(one() is not None for one in self.made))
        return result


def test_values_that_are_not_read_again_are_not_kept() -> None:
    module = DenseBlock(12).eval()
    calls = Watched(Recorder((2, 3, 3), BATCH))
    with torch.no_grad():
        replay(exported(module, (2, 3, 3)), calls, calls.recorder.input)
    assert not calls.problems
    assert len(calls.alive) >= 4 * 12
    assert max(calls.alive) <= 3


def test_a_dense_block_is_what_torch_computes() -> None:
    torch.manual_seed(0)
    module = DenseBlock(5).double()
    x = torch.randn(4, 2, 3, 3, dtype=torch.float64)
    with torch.no_grad():
        module(x)
        expected = module.eval()(x).numpy()
    assert np.abs(trace(module, (2, 3, 3))(x.numpy()) - expected).max() <= 1e-12 * np.abs(expected).max()


class Told(nn.Module):
    """Factors that differ between the inputs of a batch, or are no numbers for both."""

    def __init__(self, factors: tuple[float, float]) -> None:
        super().__init__()
        self.register_buffer("factors", torch.tensor(factors).reshape(2, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factors


def test_factors_that_differ_between_inputs_are_refused() -> None:
    with pytest.raises(UnsupportedOperatorError, match="factors that differ between inputs of a batch"):
        trace(Told((1.0, 2.0)), (3,))
    assert np.array_equal(trace(Told((2.0, 2.0)), (3,))(np.ones((1, 3))), np.full((1, 3), 2.0))
