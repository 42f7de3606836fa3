"""Norms that divide by statistics of their input: with fixed ones they are linear, and what that misses is reported."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import heinfer
from heinfer.convert import Tuning, polynomialize
from heinfer.formats.manifest import Preprocessing
from heinfer.frontend import trace

X = torch.tensor(np.random.default_rng(0).normal(size=(64, 4, 6, 6)))


class Last(nn.Module):
    """A convolution, and a norm as a function or module of it."""

    def __init__(self, norm: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = norm
        self.of_channels, self.of_all = nn.LayerNorm(4), nn.LayerNorm((4, 6, 6), eps=1e-3)
        self.grouped, self.plain = nn.GroupNorm(2, 4), nn.GroupNorm(1, 4, affine=False)
        self.instance = nn.InstanceNorm2d(4, affine=True)
        for part in (self.of_channels, self.of_all, self.grouped, self.instance):
            nn.init.normal_(part.weight)
            nn.init.normal_(part.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.flatten(self.norm(self, self.conv(x)), 1)


def channels_last(norm: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> Callable[..., torch.Tensor]:
    return lambda model, x: norm(model, x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def of_weights(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return functional.layer_norm(x, (4,), model.of_channels.weight, model.of_channels.bias)


NORMS: dict[str, tuple[Callable[..., torch.Tensor], tuple[int, ...]]] = {
    "layer norm of channels": (channels_last(lambda model, x: model.of_channels(x)), (3,)),
    "layer norm as a function": (channels_last(of_weights), (3,)),
    "layer norm of all": (lambda model, x: model.of_all(x), ()),
    "layer norm without weights": (lambda _, x: functional.layer_norm(x, (6, 6)), ()),
    "group norm": (lambda model, x: model.grouped(x), ()),
    "group norm without weights": (lambda model, x: model.plain(x), ()),
    "group norm as a function": (lambda _, x: functional.group_norm(x, 4), ()),
    "instance norm": (lambda model, x: model.instance(x), ()),
}


def scores(module: nn.Module, x: torch.Tensor = X) -> torch.Tensor:
    with torch.no_grad():
        return module.eval()(x)


@pytest.mark.parametrize("name", NORMS)
def test_what_is_missed_is_what_the_report_says(name: str) -> None:
    model = Last(NORMS[name][0]).double()
    before = scores(model)
    module, report = polynomialize(model, X)
    [row] = report.norms
    missed = scores(module) - before
    assert row.error == pytest.approx(float(missed.square().mean().sqrt() / before.square().mean().sqrt()), rel=1e-6)
    assert 0.001 < row.error < 0.7
    assert row.path in str(report)


@pytest.mark.parametrize("name", NORMS)
def test_it_is_a_linear_network_then_the_same_as_torch_has(name: str) -> None:
    module, _ = polynomialize(Last(NORMS[name][0]).double(), X)
    network = trace(module, (4, 6, 6))
    assert np.abs(network(X.numpy()) - scores(module).numpy()).max() < 1e-9


@pytest.mark.parametrize("name", NORMS)
def test_where_variances_are_the_same_nothing_is_missed(name: str) -> None:
    model = Last(NORMS[name][0]).double()
    model.conv = nn.Identity()
    checks = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(18).reshape(1, 1, 6, 6)
    alternate = torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64).reshape(1, 4, 1, 1)
    same = 3 * checks * alternate * torch.ones(5, 1, 1, 1, dtype=torch.float64)
    same[1::2] *= -1
    module, report = polynomialize(model, same)
    assert report.norms[0].error < 1e-6
    torch.testing.assert_close(scores(module, same), scores(model, same))


class Block(nn.Module):
    """A block of ConvNeXt: depthwise convolution, layer norm, two dense layers along the channels, layer scale."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.wide, self.narrow = nn.Linear(channels, 2 * channels), nn.Linear(2 * channels, channels)
        self.layer_scale = nn.Parameter(torch.full((channels, 1, 1), 0.3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.narrow(functional.gelu(self.wide(y))).permute(0, 3, 1, 2)
        return x + self.layer_scale * y


def convnext() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 2, stride=2), Block(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(4), nn.Linear(4, 3)
    )


def test_a_block_of_convnext_compiles_afterwards() -> None:
    model = convnext()
    data = torch.randn(128, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    module, report = polynomialize(model, data, degree=3)
    assert [(row.path, row.norm) for row in report.norms] == [("1.norm", "LayerNorm"), ("4", "LayerNorm")]
    assert [row.degree for row in report.activations] == [3]
    inputs = data.numpy().astype(np.float64)
    low, high = float(inputs.min()), float(inputs.max())
    declared = Preprocessing(divisor=1, mean=(0.0,), std=(1.0,), low=low, high=high, kind="values")
    compiled = heinfer.compile(module, inputs, name="convnext", preprocessing=declared)
    assert np.abs(compiled(inputs[:8]) - scores(module, data[:8]).numpy()).max() < 1e-4


def test_fixed_norms_are_tuned_with_the_rest() -> None:
    data = torch.randn(128, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    _, fitted = polynomialize(convnext(), data)
    module, report = polynomialize(convnext(), data, tuning=Tuning(epochs=3))
    assert report.agreement[0] == fitted.agreement[0]
    assert report.agreement[1] >= report.agreement[0]
    fixed = module.norm_1
    assert isinstance(fixed, nn.Module)
    assert not torch.equal(fixed.weight, torch.ones(4))
