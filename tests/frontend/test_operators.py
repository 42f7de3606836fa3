"""Functions of torch: what is traced equals the module in float64, and so does what is folded."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from heinfer.errors import UnsupportedOperatorError
from heinfer.frontend import trace
from heinfer.frontend.table import OPERATORS
from heinfer.network.folding import fold
from heinfer.network.operators import Polynomial, Square
from heinfer.nn import ChebyshevActivation

SHAPE = (3, 6, 8)
Forward = Callable[[Any, torch.Tensor], Any]


class Calling(nn.Module):
    """A function of the input and of some modules."""

    def __init__(self, forward: Forward, *modules: nn.Module) -> None:
        super().__init__()
        self.m = nn.ModuleList(modules)
        self.scale = nn.Parameter(torch.randn(3, 1, 1))
        self.function = forward

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self, x)


def calling(forward: Forward, *modules: nn.Module) -> nn.Module:
    return Calling(forward, *modules)


class Shuffle(nn.Module):
    """Sizes are computed, asserted and looped over."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, c, h, w = x.shape
        assert c % 3 == 0
        x = x.view(n, 3, c // 3, h, w).transpose(1, 2).reshape(n, c, h, w)
        return torch.cat([part * (i + 1) for i, part in enumerate(x.chunk(3, 1))], dim=1)


MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "even kernel, same": (lambda: nn.Conv2d(3, 4, 4, padding="same"), SHAPE),
    "circular": (lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), SHAPE),
    "reflect": (lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), SHAPE),
    "replicate": (lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="replicate"), SHAPE),
    "transposed": (lambda: nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1), SHAPE),
    "transposed, grouped": (lambda: nn.ConvTranspose2d(4, 6, (3, 2), (2, 1), groups=2, dilation=2), (4, 5, 5)),
    "one dimension": (
        lambda: nn.Sequential(
            nn.Conv1d(2, 3, 3, padding="same"), nn.BatchNorm1d(3), nn.AvgPool1d(2), nn.ConvTranspose1d(3, 1, 2, 2)
        ),
        (2, 8),
    ),
    "three dimensions": (
        lambda: nn.Sequential(nn.Conv3d(2, 3, 3, (1, 2, 1), 1), nn.BatchNorm3d(3), nn.AvgPool3d(2)),
        (2, 4, 6, 5),
    ),
    "adaptive pool": (lambda: nn.AdaptiveAvgPool2d((3, 5)), SHAPE),
    "global pool": (lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)), SHAPE),
    "padded pool": (lambda: nn.AvgPool2d(3, 2, padding=1), SHAPE),
    "padded pool, not counted": (lambda: nn.AvgPool2d(3, 2, padding=1, count_include_pad=False), SHAPE),
    "pool, ceil": (lambda: nn.AvgPool2d(3, 2, ceil_mode=True), SHAPE),
    "pool, divisor": (lambda: nn.AvgPool2d(2, divisor_override=3), SHAPE),
    "channel shuffle": (lambda: nn.ChannelShuffle(3), (6, 2, 2)),
    "computed sizes": (Shuffle, (6, 4, 4)),
    "pixel shuffle": (lambda: nn.PixelShuffle(2), (4, 3, 3)),
    "pixel unshuffle": (lambda: nn.PixelUnshuffle(2), SHAPE),
    "nearest": (lambda: nn.Upsample(scale_factor=2), SHAPE),
    "bilinear": (lambda: nn.Upsample(scale_factor=2, mode="bilinear"), SHAPE),
    "bilinear, corners": (lambda: nn.Upsample(size=(9, 5), mode="bilinear", align_corners=True), SHAPE),
    "pads": (lambda: nn.Sequential(nn.ZeroPad2d((1, 0, 2, 1)), nn.ReflectionPad2d(1), nn.ConstantPad2d(1, 3.5)), SHAPE),
    "unflatten": (lambda: nn.Sequential(nn.Flatten(), nn.Unflatten(1, (4, 36))), SHAPE),
    "instance norm": (lambda: nn.InstanceNorm2d(3, affine=True, track_running_stats=True), SHAPE),
    "synchronised": (lambda: nn.SyncBatchNorm(3), SHAPE),
    "series": (lambda: ChebyshevActivation(torch.randn(3, 6), torch.zeros(1), torch.full((3,), 2.0)), SHAPE),
    "bilinear layer": (lambda: calling(lambda s, x: s.m[0](x, x[:, :2]), nn.Bilinear(4, 2, 3)), (4,)),
}
FUNCTIONS: dict[str, Callable[[], nn.Module]] = {
    "scalars": lambda: calling(lambda _, x: (1 - x) * 0.5 / 3 + x - 2 * x + 1),
    "parameters": lambda: calling(lambda s, x: x * s.scale + s.scale),
    "negative": lambda: calling(lambda _, x: -x),
    "mean": lambda: calling(lambda _, x: x.mean((2, 3))),
    "mean, kept": lambda: calling(lambda _, x: x - x.mean(1, keepdim=True)),
    "sum": lambda: calling(lambda _, x: x.sum(-1)),
    "cumulative": lambda: calling(lambda _, x: x.cumsum(2)),
    "slices": lambda: calling(lambda _, x: x[:, :, ::2, 1:] + x[:, :, 1::2, :-1]),
    "chunks": lambda: calling(lambda _, x: torch.cat(x.chunk(3, 1)[::-1], 1)),
    "split": lambda: calling(lambda _, x: x.split([1, 2], 1)[1]),
    "flip and roll": lambda: calling(lambda _, x: x.flip(-1).roll(1, 2)),
    "channels last": lambda: calling(lambda s, x: s.m[0](x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), nn.Linear(3, 5)),
    "stack": lambda: calling(lambda _, x: torch.stack([x, 2 * x], 2).flatten(1, 2)),
    "repeat": lambda: calling(lambda _, x: x.repeat(1, 2, 1, 2)),
    "expand": lambda: calling(lambda _, x: x.mean((2, 3), keepdim=True).expand(-1, -1, 4, 4) * 2),
    "interpolate": lambda: calling(lambda _, x: functional.interpolate(x, scale_factor=1.5, mode="bicubic")),
    "in place": lambda: calling(lambda _, x: x.clone().index_fill_(1, torch.tensor([0]), 0).add_(x)),
    "masked": lambda: calling(lambda _, x: x.masked_fill(torch.eye(6, 8) > 0, 2.0)),
    "unfold": lambda: calling(lambda _, x: functional.unfold(x, 3)),
    "lerp": lambda: calling(lambda _, x: torch.lerp(x, x * 2, 0.3)),
    "matrix": lambda: calling(lambda s, x: x @ s.m[0].weight.T, nn.Linear(8, 5)),
    "matrix first": lambda: calling(lambda s, x: s.m[0].weight @ x, nn.Linear(6, 5)),
    "vector": lambda: calling(lambda s, x: torch.mv(x.flatten(1), s.m[0].weight[0])[:, None], nn.Linear(144, 1)),
    "einsum": lambda: calling(lambda s, x: torch.einsum("bchw,kh->bwkc", x, s.m[0].weight), nn.Linear(6, 2)),
    "square": lambda: calling(lambda s, x: s.m[0](x) ** 2, nn.Conv2d(3, 4, 3)),
    "quadratic": lambda: calling(lambda s, x: (0.3 * s.m[0](x) + 1) * s.m[0](x) - 2, nn.Conv2d(3, 4, 3)),
    "square of squares": lambda: calling(lambda _, x: ((x * x + 1) ** 2 + x) ** 2),
    "squeeze and excite": lambda: calling(
        lambda s, x: x * s.m[1](s.m[0](x)), nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 3, 1)
    ),
    "gate": lambda: calling(lambda s, x: s.m[0](x) * s.m[1](x), nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)),
    "dense block": lambda: calling(lambda s, x: torch.cat([x, s.m[0](x), x], 1), nn.Conv2d(3, 2, 1)),
    "one of a tuple": lambda: calling(lambda _, x: (x * 2,)),
}
POLYNOMIALS: dict[str, Forward] = {
    "cube": lambda _, x: x * x * x - x + 1,
    "Horner": lambda _, x: ((0.3 * x + 0.2) * x + 0.1) * x - 1,
    "powers": lambda _, x: x**7 - 0.1 * x**3,
}
ALL = MODULES | {name: (make, SHAPE) for name, make in FUNCTIONS.items()}


def settled(module: nn.Module) -> nn.Module:
    """Float64, evaluation mode, with running statistics that are not the trivial ones."""
    for part in module.modules():
        if getattr(part, "running_mean", None) is not None:
            nn.init.uniform_(part.running_mean, -1, 1)
            nn.init.uniform_(part.running_var, 0.5, 2)
    return module.double().eval()


def compared(module: nn.Module, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    settled(module)
    x = torch.randn(4, *shape, dtype=torch.float64)
    expected = module(x)
    expected = (expected[0] if isinstance(expected, tuple) else expected).detach().numpy()
    network = trace(module, shape)
    assert np.abs(network(x.numpy()) - expected).max() <= 1e-10 * max(1, np.abs(expected).max())
    assert np.abs(fold(network)(x.numpy()) - expected).max() <= 1e-10 * max(1, np.abs(expected).max())


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize("name", ALL)
def test_a_function_equals_torch(name: str) -> None:
    make, shape = ALL[name]
    compared(make(), shape)


@pytest.mark.parametrize("name", POLYNOMIALS)
def test_a_polynomial_equals_torch(name: str) -> None:
    compared(calling(POLYNOMIALS[name]), SHAPE)


def test_what_only_moves_is_one_map() -> None:
    network = trace(calling(lambda _, x: torch.cat([x.flip(-1), x * 2], 1)[:, ::2].permute(0, 2, 1, 3)), SHAPE)
    assert len(network.nodes) == 1


def test_a_quadratic_is_a_square_where_that_loses_nothing() -> None:
    kinds = [
        [type(node.operator) for node in trace(calling(forward), SHAPE).nodes]
        for forward in (lambda _, x: (2 * x + 1) * x, lambda _, x: (0 * x + 1) * x + x * x, lambda _, x: x * x)
    ]
    assert [kind[0] for kind in kinds] == [Polynomial, Polynomial, Square]
    flat = trace(calling(lambda _, x: (1e-6 * x + 1) * x), SHAPE)
    assert not any(isinstance(node.operator, Polynomial) for node in flat.nodes)


@pytest.mark.parametrize(
    "forward",
    [
        lambda _, x: x.reshape(-1, 2 * 3 * 6 * 8),
        lambda _, x: x.roll(1, 0),
        lambda _, x: x.flip(0),
        lambda _, x: x.transpose(0, 1),
        lambda _, x: torch.stack([x[0], x[0]]),
        lambda _, x: x * torch.arange(2.0)[:, None, None, None],
    ],
)
def test_what_mixes_the_inputs_of_a_batch_is_refused(forward: Forward) -> None:
    with pytest.raises(UnsupportedOperatorError, match="batch"):
        trace(calling(forward), SHAPE)


def test_every_name_of_the_table_is_a_function_of_torch() -> None:
    unknown = [
        name
        for name in (*OPERATORS.moves, *OPERATORS.rules)
        if not hasattr(torch.ops.aten, name) and not name.startswith("heinfer::")
    ]
    assert not unknown
