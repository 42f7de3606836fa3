"""Tracing: every supported layer equals torch; everything else is named."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from heinfer.convert import factorize
from heinfer.errors import ShapeError, UnsupportedOperatorError
from heinfer.frontend import trace
from heinfer.network.folding import fold
from heinfer.network.ir import Network
from heinfer.network.operators import Affine, Square
from heinfer.nn import FFConv2d, PolyActivation


def settled(module: nn.Module) -> nn.Module:
    """Float64, evaluation mode, with batch statistics that are not the trivial ones."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -1, 1)
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 2)
            nn.init.uniform_(part.bias, -1, 1)
        if isinstance(part, PolyActivation):
            nn.init.uniform_(part.b, -1, 1)
            nn.init.uniform_(part.c, -1, 1)
    return module.double().eval()


LAYERS = {
    "convolution": (nn.Conv2d(2, 3, 3, stride=2, padding=1), (2, 7, 6)),
    "convolution without bias": (nn.Conv2d(2, 4, (3, 2), padding=(1, 0), bias=False), (2, 5, 5)),
    "grouped and dilated": (nn.Conv2d(4, 6, 3, groups=2, dilation=2), (4, 7, 7)),
    "factorized": (FFConv2d(3, 5, 3, rank=2, stride=2, padding=1), (3, 6, 6)),
    "dense": (nn.Linear(6, 4), (6,)),
    "batch normalisation": (nn.BatchNorm2d(3), (3, 4, 4)),
    "batch normalisation of a vector": (nn.BatchNorm1d(5), (5,)),
    "average pool": (nn.AvgPool2d(2), (3, 6, 4)),
    "overlapping pool": (nn.AvgPool2d(3, stride=1), (2, 5, 5)),
    "polynomial": (PolyActivation(3), (3, 2, 2)),
    "polynomial of a vector": (PolyActivation(4), (4,)),
    "flatten": (nn.Flatten(), (2, 3, 4)),
    "dropout": (nn.Sequential(nn.Dropout(), nn.Identity(), nn.Flatten()), (2, 2, 2)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer_equals_torch(name: str) -> None:
    module, shape = LAYERS[name]
    settled(module)
    x = torch.randn(4, *shape, dtype=torch.float64)
    network = trace(module, shape)
    expected = module(x).detach().numpy()
    assert np.abs(network(x.numpy()) - expected).max() < 1e-10
    assert np.abs(fold(network)(x.numpy()) - expected).max() < 1e-10


def small_network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        PolyActivation(4),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.AvgPool2d(2),
        PolyActivation(6),
        nn.Flatten(),
        nn.Linear(6 * 16, 5),
    )


def test_whole_network_folds_to_maps_and_squares() -> None:
    module = settled(factorize(small_network(), rank=2))
    x = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    folded = fold(trace(module, (1, 8, 8)))
    assert [type(node.operator) for node in folded.nodes] == [Affine, Square, Affine, Affine, Affine, Square, Affine]
    assert np.abs(folded(x.numpy()) - module(x).detach().numpy()).max() < 1e-10


def test_forward_with_torch_flatten() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(12, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(torch.flatten(x, 1))

    module = settled(Net())
    x = torch.randn(2, 3, 2, 2, dtype=torch.float64)
    assert np.abs(trace(module, (3, 2, 2))(x.numpy()) - module(x).detach().numpy()).max() < 1e-10


class Function(nn.Module):
    """A function between two layers."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 2)
        self.fc = nn.Linear(12, 2)
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.function(self.conv(x)))


def unpacked(x: torch.Tensor) -> torch.Tensor:
    batch, _, _, _ = x.shape
    return x.view(batch, -1)


FLATTENED = {
    "view": lambda x: x.view(x.shape[0], -1),
    "view by size": lambda x: x.view(x.size(0), -1),
    "view by size()": lambda x: x.view(x.size()[0], -1),
    "view by named size": lambda x: x.view(x.size(dim=0), -1),
    "view of a tuple": lambda x: x.view((x.shape[0], -1)),
    "view of known size": lambda x: x.view(-1, 12),
    "view of known size and batch": lambda x: x.view(x.shape[0], 12),
    "view of an unpacked shape": unpacked,
    "reshape": lambda x: x.reshape(x.size(0), -1),
    "torch.reshape": lambda x: torch.reshape(x, (x.shape[0], -1)),
    "torch.reshape by name": lambda x: torch.reshape(x, shape=[-1, 12]),
}


@pytest.mark.parametrize("name", FLATTENED)
def test_flat_views_are_flatten(name: str) -> None:
    module = settled(Function(FLATTENED[name]))
    x = torch.randn(4, 1, 3, 3, dtype=torch.float64)
    network = trace(module, (1, 3, 3))
    assert np.abs(network(x.numpy()) - module(x).detach().numpy()).max() < 1e-10
    flattened = settled(Function(lambda x: torch.flatten(x, 1)))
    flattened.load_state_dict(module.state_dict())
    assert np.array_equal(network(x.numpy()), trace(flattened, (1, 3, 3))(x.numpy()))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            functional.relu,
            r"relu: relu has no encrypted form; .*PolyActivation.*\(test_frontend\.py:\d+\)",
        ),
        (lambda x: functional.max_pool2d(x, 1), "max_pool2d: .* by average pooling"),
        (lambda x: functional.log_softmax(x, 1), "log_softmax: .* leave it off: .* labels do not change"),
        (lambda x: x.softmax(1), "softmax: .* leave it off"),
        (lambda x: x / x, "div: div divides by what depends on the input"),
        (lambda x: x - x.mean(0), "mean: mean runs over the batch"),
        (lambda x: x @ x.transpose(-1, -2), "matmul: matmul multiplies two matrices that both depend on the input"),
        (lambda x: x**-1, "pow_1: pow is supported with exponents of 1 to 15, not -1"),
        (lambda x: x**0.5, "pow_1: pow is supported with whole exponents"),
        (lambda x: x + torch.arange(2.0)[:, None, None, None], "fc: linear has constants that differ between inputs"),
        (lambda x: x if x.sum() > 0 else -x, "the model's forward cannot be followed .* it takes another way"),
    ],
)
def test_functions_name_what_to_write_instead(function: Any, message: str) -> None:
    with pytest.raises(UnsupportedOperatorError, match=f"^{message}"):
        trace(Function(lambda x: torch.flatten(function(x), 1)), (1, 3, 3))


def test_a_view_of_another_size_is_named() -> None:
    with pytest.raises(ShapeError, match=r"^fc: .* \[4, 6\] X \[12, 2\], where the batch is 2 \(test_frontend"):
        trace(Function(lambda x: x.view(-1, 6)), (1, 3, 3))


def test_unsupported_module_is_named_with_its_path() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sequential(nn.ReLU()))
    with pytest.raises(UnsupportedOperatorError, match=r"1\.0: ReLU has no encrypted form.*PolyActivation"):
        trace(module, (1, 8, 8))


def test_unsupported_function_is_named() -> None:
    class Net(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sigmoid(x)

    with pytest.raises(UnsupportedOperatorError, match="sigmoid"):
        trace(Net(), (3,))


def traced_equals_torch(module: nn.Module, shape: tuple[int, ...]) -> Network:
    settled(module)
    network = trace(module, shape)
    x = np.random.default_rng(0).normal(size=(3, *shape))
    expected = module(torch.tensor(x)).detach().numpy()
    assert np.abs(network(x) - expected).max() < 1e-10
    assert np.abs(fold(network)(x) - expected).max() < 1e-10
    return network


class Branches(nn.Module):
    """Two convolutions of one input, and what is made of them."""

    def __init__(self, join: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.a = nn.Conv2d(2, 3, 3, padding=1)
        self.b = nn.Conv2d(2, 3, 1)
        self.join = join

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.join(self.a(x), self.b(x))


class Inside(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.block = module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(x)


def grown(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    x += y
    x += y
    return x


JOINED = {
    "operator": lambda x, y: x + y,
    "torch.add": torch.add,
    "torch.add by name": lambda x, y: torch.add(input=x, other=y),
    "method": lambda x, y: x.add(y),
    "in place": lambda x, y: x.add_(y),
    "in place, by whatever name": lambda x, y: grown(x, y) + grown(x, x),
    "in place, of a view": lambda x, y: (grown(torch.flatten(x, 1), torch.flatten(y, 1)), x)[1],
    "with a factor": lambda x, y: torch.add(x, y, alpha=2),
    "and a constant": lambda x, y: x + 1 + y - 2,
    "rows": lambda x, y: torch.cat([x, y], 2),
    "columns": lambda x, y: torch.cat([x, y], dim=-1),
    "difference": lambda x, y: 1 - (x - y) / 3,
    "in place, read by nobody else": grown,
    "twice the same": lambda x, y: x + x,
    "three": lambda x, y: x + y + x,
    "torch.cat": lambda x, y: torch.cat([x, y], 1),
    "torch.cat by name": lambda x, y: torch.cat(tensors=(y, x), dim=1),
    "torch.concat": lambda x, y: torch.concat((x, y, x), dim=1),
    "sum of concatenations": lambda x, y: torch.cat([x, y], dim=1) + torch.cat([y, y], dim=1),
    "concatenation of sums": lambda x, y: torch.cat([x + y, y], dim=1),
    "flat": lambda x, y: torch.cat([torch.flatten(x, 1), torch.flatten(y, 1)], dim=1),
}


@pytest.mark.parametrize("name", JOINED)
def test_where_branches_meet_equals_torch(name: str) -> None:
    network = traced_equals_torch(Branches(JOINED[name]), (2, 4, 5))
    assert len(fold(network).nodes) == 1  # maps of one tensor are one map, at no cost


def test_a_dead_branch_is_left_out() -> None:
    class Net(Branches):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.a(x)
            return self.b(x)

    assert [node.name for node in fold(traced_equals_torch(Net(grown), (2, 4, 4))).nodes] == ["b"]


@pytest.mark.parametrize(
    ("join", "message"),
    [
        (
            lambda x, y: torch.cat([x, y]),
            r"output: reads a tensor of shape \(4, 3, 4, 4\) for 2 inputs, whose first axis",
        ),
        (lambda x, y: (x, y), r"output: returns 2 tensors, 0, 1: return one, by torch\.cat"),
        (lambda x, y: {"a": x, "b": y}, r"output: returns 2 tensors, a, b"),
    ],
)
def test_unsupported_joints_are_named_with_their_path(join: Any, message: str) -> None:
    with pytest.raises(UnsupportedOperatorError, match=f"^{message}"):
        trace(Inside(Branches(join)), (2, 4, 4))


def test_joints_of_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ShapeError, match=r"^block: .*broadcast.*\(test_frontend\.py:\d+\)"):
        trace(Inside(Branches(lambda x, y: x + torch.flatten(y, 1))), (2, 4, 4))
    with pytest.raises(ShapeError, match=r"^block: .*dimensions"):
        trace(Inside(Branches(lambda x, y: torch.cat([x, torch.flatten(y, 1)], 1))), (2, 4, 4))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.BatchNorm2d(1, track_running_stats=False), "running statistics"),
        (nn.Softmax(1), "leave it off: the largest score stays the largest, so labels do not change"),
        (nn.LogSoftmax(1), "leave it off"),
        (nn.MaxPool2d(2), "by average pooling"),
    ],
)
def test_unsupported_options_are_named(module: nn.Module, message: str) -> None:
    with pytest.raises(UnsupportedOperatorError, match=f"0: .*{message}"):
        trace(nn.Sequential(module), (1, 4, 4))


def test_shape_errors_name_the_layer() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(10, 2))
    with pytest.raises(ShapeError, match=r"^1: .* \[2, 16\] X \[10, 2\]"):
        trace(module, (1, 4, 4))
