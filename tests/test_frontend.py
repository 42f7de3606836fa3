"""Tracing: every supported layer equals torch; everything else is named."""

import numpy as np
import pytest
import torch
from torch import nn

from heinfer.convert import factorize
from heinfer.errors import ShapeError, UnsupportedOperatorError
from heinfer.frontend import trace
from heinfer.network.folding import fold
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


def test_branches_are_refused() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 3)
            self.b = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.a(x)
            return self.b(x)

    with pytest.raises(UnsupportedOperatorError, match="b: reads something else than the layer before it"):
        trace(Net(), (3,))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), "padded with zeros"),
        (nn.AvgPool2d(2, padding=1), "without padding"),
        (nn.BatchNorm2d(1, track_running_stats=False), "running statistics"),
        (nn.Flatten(2), "batch axis"),
    ],
)
def test_unsupported_options_are_named(module: nn.Module, message: str) -> None:
    with pytest.raises(UnsupportedOperatorError, match=f"0: .*{message}"):
        trace(nn.Sequential(module), (1, 4, 4))


def test_shape_errors_name_the_layer() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(10, 2))
    with pytest.raises(ShapeError, match="1: expected 10 elements, got 16"):
        trace(module, (1, 4, 4))
