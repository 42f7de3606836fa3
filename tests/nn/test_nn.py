"""Layers that an encrypted program can hold, against their formulas in torch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from heinfer.nn import FFConv2d, PolyActivation


@settings(max_examples=25, deadline=None)
@given(
    c_in=st.integers(1, 4),
    c_out=st.integers(1, 6),
    kernel=st.integers(1, 4),
    rank=st.integers(1, 5),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    bias=st.booleans(),
)
def test_ffconv_is_the_convolution_by_the_product_of_its_factors(c_in, c_out, kernel, rank, stride, padding, bias):
    layer = FFConv2d(c_in, c_out, kernel, rank, stride, padding, bias).double()
    product = torch.einsum("or,rckl->ockl", layer.pointwise.weight[:, :, 0, 0], layer.spatial.weight)
    x = torch.randn(2, c_in, 7, 9, dtype=torch.float64)
    expected = nn.functional.conv2d(x, product, layer.pointwise.bias, stride, padding)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-10)
    assert layer.rank == rank
    assert layer.spatial.bias is None
    assert (layer.pointwise.bias is not None) == bias


@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 4, 6)])
def test_activation_is_its_coefficients_per_channel(shape):
    activation = PolyActivation(3).double()
    with torch.no_grad():
        for parameter in activation.parameters():
            parameter.normal_()
    x = torch.randn(shape, dtype=torch.float64)
    y = activation(x)
    assert y.shape == x.shape
    for channel, (a, b, c) in enumerate(zip(*activation.coefficients(), strict=True)):
        torch.testing.assert_close(y[:, channel], a * x[:, channel] ** 2 + b * x[:, channel] + c)


@given(st.floats(-1e6, 1e6))
def test_leading_coefficient_stays_away_from_zero(value):
    activation = PolyActivation(1)
    with torch.no_grad():
        activation.raw_a.fill_(value)
    assert activation.coefficients()[0].item() >= PolyActivation.SMALLEST_A * (1 - 1e-6)


def test_activation_starts_as_the_best_quadratic_for_relu():
    x = torch.randn(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    powers = torch.stack((x**2, x, torch.ones_like(x)), 1)
    best = torch.linalg.lstsq(powers, x.relu()[:, None]).solution[:, 0]
    start = torch.stack([v[0] for v in PolyActivation(1).coefficients()]).double()
    torch.testing.assert_close(start, best, rtol=0, atol=0.01)


def test_coefficients_learn():
    activation = PolyActivation(2)
    activation(torch.randn(4, 2)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().min() > 0 for p in activation.parameters())
