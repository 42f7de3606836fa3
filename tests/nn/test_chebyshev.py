"""ChebyshevActivation: its values, its gradients, that it is one node of an exported graph, what it refuses."""

import numpy as np
import pytest
import torch
from numpy.polynomial import chebyshev
from torch import nn

from heinfer.errors import SettingError
from heinfer.nn import ChebyshevActivation


def activation(degree, channels=3, shared=False, dtype=torch.float64):
    generator = torch.Generator().manual_seed(degree)
    rows = 1 if shared else channels
    coefficients = torch.randn(rows, degree + 1, generator=generator, dtype=dtype)
    center, radius = torch.randn(2, rows, generator=generator, dtype=dtype)
    return ChebyshevActivation(coefficients, center, radius.abs() + 0.5)


@pytest.mark.parametrize("degree", range(1, 16))
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("rest", [(), (7,), (4, 5)])
def test_it_is_the_chebyshev_series_of_each_channel(degree, shared, rest):
    layer = activation(degree, shared=shared)
    x = torch.randn(6, 3, *rest, dtype=torch.float64)
    result = layer(x).detach().numpy()
    for channel in range(3):
        row = 0 if shared else channel
        t = (x[:, channel].numpy() - layer.center[row].item()) / layer.radius[row].item()
        expected = chebyshev.chebval(t, layer.coefficients[row].detach().numpy())
        np.testing.assert_allclose(result[:, channel], expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
    assert layer.degree == degree


@pytest.mark.parametrize("degree", [1, 2, 7])
def test_gradients_are_those_of_the_series(degree):
    layer = activation(degree)
    x = torch.randn(4, 3, 2, dtype=torch.float64, requires_grad=True)
    arguments = x, layer.coefficients, layer.center, layer.radius
    assert torch.autograd.gradcheck(torch.ops.heinfer.chebyshev, arguments)


def test_only_coefficients_learn():
    layer = activation(3)
    assert [name for name, _ in layer.named_parameters()] == ["coefficients"]
    assert set(layer.state_dict()) == {"coefficients", "center", "radius"}


def test_it_is_one_node_of_an_exported_graph():
    module = nn.Sequential(nn.Conv2d(1, 3, 3), activation(5, dtype=torch.float32)).eval()
    example = torch.randn(2, 1, 8, 8)
    exported = torch.export.export(module, (example,))
    called = [node.target for node in exported.graph.nodes if node.op == "call_function"]
    assert called[-1] == torch.ops.heinfer.chebyshev.default
    assert len(called) == 2
    torch.testing.assert_close(exported.module()(example), module(example))


@pytest.mark.parametrize(
    ("coefficients", "center", "radius"),
    [
        (torch.ones(3), torch.zeros(1), torch.ones(1)),
        (torch.ones(3, 1), torch.zeros(1), torch.ones(1)),
        (torch.ones(3, 17), torch.zeros(1), torch.ones(1)),
        (torch.ones(3, 3), torch.zeros(2), torch.ones(1)),
        (torch.ones(1, 3), torch.zeros(2), torch.ones(3)),
        (torch.ones(1, 3), torch.zeros(1), torch.zeros(1)),
        (torch.full((1, 3), torch.nan), torch.zeros(1), torch.ones(1)),
    ],
)
def test_other_shapes_and_values_are_refused(coefficients, center, radius):
    with pytest.raises(SettingError):
        ChebyshevActivation(coefficients, center, radius)
