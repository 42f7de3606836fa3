"""Block-circulant layers against their dense expansion, and the homomorphic DFT against numpy's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import assert_runs, planned
from torch import nn

from heinfer.convert import circulant
from heinfer.errors import SettingError
from heinfer.frontend import trace
from heinfer.network.folding import fold
from heinfer.nn import BlockCirculantConv2d, BlockCirculantLinear, PolyActivation
from heinfer.nn.circulant import BlockDft, InverseBlockDft, nearest_circulant, real_dft

BLOCKS = st.sampled_from([2, 4, 8])


def numpy_dft(x: np.ndarray) -> np.ndarray:
    """Rows as real_dft has them, by numpy's transform of real numbers along the first axis."""
    block = len(x)
    spectrum = np.fft.rfft(x, axis=0, norm="ortho")
    rows = [spectrum[0].real, spectrum[block // 2].real]
    for frequency in range(1, block // 2):
        rows += [2**0.5 * spectrum[frequency].real, 2**0.5 * spectrum[frequency].imag]
    return np.array(rows)


@pytest.mark.parametrize("block", [2, 4, 8, 16, 32])
def test_the_transform_is_numpys_and_orthogonal(block):
    x = np.random.default_rng(0).normal(size=(block, 3))
    matrix = real_dft(block).numpy()
    np.testing.assert_allclose(matrix @ x, numpy_dft(x), atol=1e-12)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(block), atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(block=BLOCKS, channels=st.integers(1, 20), planes=st.booleans())
def test_the_homomorphic_transform_is_numpys_on_every_block_and_its_inverse_returns(block, channels, planes):
    shape = (channels, 2, 3) if planes else (channels,)
    x = np.random.default_rng(channels).normal(size=(2, *shape))
    blocks = -(-channels // block)
    filled = np.concatenate([x, np.zeros((2, blocks * block - channels, *shape[1:]))], axis=1)
    parts = filled.reshape(2, blocks, block, -1)
    expected = np.stack([numpy_dft(part.swapaxes(0, 1)) for part in parts]).reshape(filled.shape)
    there, back = trace(BlockDft(channels, block), shape), trace(InverseBlockDft(channels, block), expected.shape[1:])
    np.testing.assert_allclose(there(x), expected, atol=1e-12)
    np.testing.assert_allclose(back(expected), x, atol=1e-12)
    torch.testing.assert_close(BlockDft(channels, block)(torch.from_numpy(x)).numpy(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("slots", [64, 256])
def test_the_homomorphic_transform_is_lowered_like_any_linear_map(slots):
    there = nn.Sequential(BlockDft(6, 4), InverseBlockDft(6, 4))
    x = trace(there, (6, 4, 4))
    assert_runs(x, planned(fold(x), slots))
    only = trace(there[0], (6, 4, 4))
    circuit = assert_runs(only, planned(fold(only), slots))
    assert circuit.slots == slots


@settings(max_examples=30, deadline=None)
@given(
    c_in=st.integers(1, 9),
    c_out=st.integers(1, 9),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    block=BLOCKS,
    stride=st.integers(1, 2),
    padding=st.integers(0, 2),
    bias=st.booleans(),
)
def test_a_block_circulant_convolution_is_that_by_its_dense_expansion(
    c_in, c_out, kernel, block, stride, padding, bias
):
    layer = BlockCirculantConv2d(c_in, c_out, kernel, block, stride, padding, bias)
    x = torch.randn(2, c_in, 6, 5)
    with torch.no_grad():
        if layer.inverse.bias is not None:
            layer.inverse.bias.normal_()
        expected = nn.functional.conv2d(x, layer.dense_weight(), layer.inverse.bias, stride, padding)
        torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-5)
    traced = trace(layer, (c_in, 6, 5))
    np.testing.assert_allclose(traced(x.double().numpy()), expected.numpy(), atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(inputs=st.integers(1, 20), outputs=st.integers(1, 20), block=BLOCKS)
def test_a_block_circulant_dense_layer_is_that_by_its_dense_expansion(inputs, outputs, block):
    layer = BlockCirculantLinear(inputs, outputs, block)
    x = torch.randn(3, inputs)
    expected = (x @ layer.dense_weight().T).detach()
    torch.testing.assert_close(layer(x).detach(), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(trace(layer, (inputs,))(x.double().numpy()), expected.numpy(), atol=1e-5)


def test_the_expansion_is_circulant_in_blocks():
    weight = BlockCirculantConv2d(8, 12, 3, block=4).dense_weight()
    assert weight.shape == (12, 8, 3, 3)
    for i in range(0, 12, 4):
        for j in range(0, 8, 4):
            part = weight[i : i + 4, j : j + 4]
            torch.testing.assert_close(part.roll((1, 1), (0, 1)), part, rtol=0, atol=0)


@settings(max_examples=20, deadline=None)
@given(c_in=st.integers(1, 9), c_out=st.integers(1, 9), block=BLOCKS, seed=st.integers(0, 2**32))
def test_a_projection_is_nearest_and_keeps_what_is_circulant(c_in, c_out, block, seed):
    generator = torch.Generator().manual_seed(seed)
    conv = nn.Conv2d(c_in, c_out, 3, stride=2, padding=1).double()
    with torch.no_grad():
        conv.weight.copy_(torch.randn(conv.weight.shape, generator=generator, dtype=torch.float64))
    near = circulant(conv, {"": block})
    assert isinstance(near, BlockCirculantConv2d)
    rest = conv.weight - near.dense_weight()
    # Nearest: what is left is orthogonal to every block-circulant matrix.
    assert nearest_circulant(rest, block).abs().max() < 1e-12
    again = nn.Conv2d(c_in, c_out, 3, stride=2, padding=1).double()
    again.load_state_dict({"weight": near.dense_weight(), "bias": conv.bias})
    same = circulant(again, {"": block})
    torch.testing.assert_close(same.spectral.weight, near.spectral.weight, rtol=0, atol=1e-12)
    x = torch.randn(2, c_in, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(same(x), again(x), rtol=0, atol=1e-5)  # the transform's matrix is float32


def test_layers_are_projected_by_path_with_a_block_size_each_and_learn():
    model = nn.Sequential(
        nn.Conv2d(1, 5, 3), PolyActivation(5), nn.Conv2d(5, 6, 3), PolyActivation(6), nn.Flatten(), nn.Linear(54, 4)
    )
    made = circulant(model, {"2": 4, "5": 2})
    assert [type(made[i]).__name__ for i in (0, 2, 5)] == ["Conv2d", "BlockCirculantConv2d", "BlockCirculantLinear"]
    assert isinstance(model[2], nn.Conv2d)
    assert [made[i].block for i in (2, 5)] == [4, 2]
    made(torch.randn(2, 1, 7, 7)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in made.parameters())


@pytest.mark.parametrize(
    ("layer", "blocks", "reason"),
    [
        (nn.Linear(4, 4), {"": 3}, "power of two of channels, at least 2; got 3"),
        (nn.Linear(4, 4), {"": 1}, "at least 2; got 1"),
        (nn.Flatten(), {"": 2}, "this is Flatten"),
        (nn.Conv2d(4, 4, 3, groups=2), {"": 2}, "groups 2"),
        (nn.Linear(4, 4), {"fc": 2}, "fc: the model has no such module"),
    ],
)
def test_what_cannot_be_circulant_is_named(layer, blocks, reason):
    with pytest.raises(SettingError, match=reason):
        circulant(layer, blocks)
