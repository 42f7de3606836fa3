"""What random programs found to be read as something else, or not at all: each in a network of a line."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import heinfer
from heinfer.errors import UnsupportedOperatorError
from heinfer.formats.manifest import Preprocessing
from heinfer.frontend import trace
from heinfer.network.folding import fold
from heinfer.network.operators import Chebyshev, Square

aten = torch.ops.aten
Function = Callable[[Tensor], Tensor]


class Of(nn.Module):
    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def weight(*shape: int) -> Tensor:
    return torch.tensor(np.random.default_rng(0).normal(size=shape))


def normalised(x: Tensor, mean: float, deviation: float) -> Tensor:
    moments = torch.full((x.shape[1],), mean), torch.full((x.shape[1],), deviation**2)
    return functional.batch_norm(x, *(m.double() for m in moments))


def compared(function: Function, shape: tuple[int, ...], low: float = -1.0, high: float = 1.0) -> None:
    module = Of(function).double().eval()
    x = np.random.default_rng(1).uniform(low, high, (5, *shape))
    expected = module(torch.tensor(x)).numpy()
    torch.set_default_dtype(torch.float64)  # of an example for a module without weights
    try:
        network = trace(module, shape)
    finally:
        torch.set_default_dtype(torch.float32)
    for computed in (network, fold(network)):
        assert np.abs(computed(x) - expected).max() <= 1e-12 * np.abs(expected).max()


FAR: dict[str, Function] = {
    "cube": lambda x: (x - 1000) ** 3,
    "normalised, square": lambda x: normalised(x, 1000.0, 1.0) ** 2,
    "normalised, cube": lambda x: normalised(x, 1000.0, 1.0) ** 3,
    "products": lambda x: (0.3 * (x - 1000) + 0.2) * (x - 1000) * (x - 1000),
}


@pytest.mark.parametrize("name", FAR)
def test_powers_of_what_is_shifted_far_do_not_cancel(name: str) -> None:
    compared(FAR[name], (3,), 999, 1001)


def test_a_power_is_of_what_is_normalised() -> None:
    """In units of the raw values, up to 4000, nothing of its seventh power would be left."""
    module = nn.Sequential(nn.BatchNorm1d(3), Of(lambda x: x**7)).double().eval()
    nn.init.constant_(module[0].running_mean, 2000)
    nn.init.constant_(module[0].running_var, 2000.0**2)
    raw = Preprocessing(divisor=1, mean=(0.0,), std=(1.0,), low=0.0, high=4000.0, kind="values")
    x = np.random.default_rng(0).uniform(0, 4000, (40, 3))
    model = heinfer.compile(module, x, name="raw", preprocessing=raw)
    assert float(model.bundle.metadata["predicted precision"].removesuffix(" bits")) > 7


def test_a_power_beside_constants_keeps_its_degree_everywhere() -> None:
    compared(lambda x: functional.pad(x, (1, 1), value=2.0) ** 3, (4,))
    kinds = [type(node.operator) for node in trace(Of(lambda x: functional.pad(x, (1, 1)) ** 3), (4,)).nodes]
    assert kinds[-1] is Chebyshev


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (x.sum(1) ** 2)[:, None],
        lambda x: (x.sum(1) ** 3)[:, None],
        lambda x: (x.sum(1) * x[:, 0])[:, None],
        lambda x: torch.einsum("bi,i->b", x, weight(3))[:, None] + x,
    ],
)
def test_a_number_for_each_input_may_be_computed_with(function: Function) -> None:
    compared(function, (3,))


def test_scores_without_an_axis_are_refused() -> None:
    with pytest.raises(UnsupportedOperatorError, match=r"one number for each input.*unsqueeze\(1\)"):
        trace(nn.Sequential(nn.Linear(3, 1), nn.Flatten(0)), (3,))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.einsum("bij,i->bji", x, weight(1)),
        lambda x: torch.einsum("bij,jk->bik", x[:, :, :1], weight(4, 5)),
    ],
)
def test_an_axis_of_one_in_an_einsum_goes_with_any(function: Function) -> None:
    compared(function, (3, 4))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.gather(1, torch.tensor([2, 0, 1]).expand_as(x)),
        lambda x: x + weight(1, 3).expand_as(x),
        lambda x: x + torch.tensor([2.0, 3.0, 4.0]).reshape(1, 3).expand_as(x).flip(1),
    ],
)
def test_constants_in_the_shape_of_a_tensor_stay_constants(function: Function) -> None:
    compared(function, (3,))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: aten._reshape_alias(x.permute(0, 2, 1).contiguous(), [len(x), 12], [12, 1]),
        lambda x: normalised(x.permute(0, 2, 1), 1.0, 2.0).contiguous().view(len(x), 12),
        lambda x: aten._unsafe_view(x.permute(0, 2, 1).clone(memory_format=torch.contiguous_format), [len(x), 2, 6]),
    ],
)
def test_a_view_is_of_elements_not_of_memory(function: Function) -> None:
    compared(function, (3, 4))


@pytest.mark.parametrize("padding", [0, 1, 2])
def test_a_transposed_convolution_may_add_more_than_its_stride(padding: int) -> None:
    kernels, bias = weight(2, 3, 2), weight(3)
    compared(
        lambda x: functional.conv_transpose1d(x, kernels, bias, padding=padding, output_padding=2, dilation=3), (2, 6)
    )


def test_the_bits_of_numbers_are_not_read() -> None:
    with pytest.raises(UnsupportedOperatorError, match="reads the bits of numbers as those of another type"):
        trace(Of(lambda x: x.view(torch.int32).view(torch.float32) * 2), (3,))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x - torch.full_like(x, 2.5),
        lambda x: x - x.new_full((3,), 2.5),
        lambda x: 2 * aten.native_dropout(x, 0.3, False)[0],
        lambda x: x.mv(weight(3))[:, None],
    ],
)
def test_more_functions(function: Function) -> None:
    compared(function, (3,))


def test_a_square_of_what_is_shifted_far_is_one() -> None:
    assert [type(node.operator) for node in trace(Of(lambda x: (x - 1000) ** 2), (3,)).nodes][-1] is Square
