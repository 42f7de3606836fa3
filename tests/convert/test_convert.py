"""Factorized layers: that they are the layer, to the rank that was asked for."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from heinfer.convert import factorize
from heinfer.errors import SettingError
from heinfer.nn import FFConv2d


def small_model() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(6, 5, 1), nn.Sequential(nn.Conv2d(5, 3, 2))
    )


def conv_and_input(seed: int, c_in: int, c_out: int, **options: object) -> tuple[nn.Conv2d, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    conv = nn.Conv2d(c_in, c_out, **options).double()
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return conv, torch.randn(2, c_in, 8, 9, generator=generator, dtype=torch.float64)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    c_in=st.integers(1, 4),
    c_out=st.integers(1, 12),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    bias=st.booleans(),
)
def test_full_rank_is_the_same_map(seed, c_in, c_out, kernel, stride, padding, bias):
    conv, x = conv_and_input(seed, c_in, c_out, kernel_size=kernel, stride=stride, padding=padding, bias=bias)
    full = min(c_out, c_in * kernel[0] * kernel[1])
    for result in (factorize(conv, rank=full, layers=[""]), factorize(conv, energy=1.0, layers=[""])):
        assert isinstance(result, FFConv2d)
        torch.testing.assert_close(result(x), conv(x), rtol=0, atol=1e-10)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), energy=st.floats(0.01, 1))
def test_energy_gives_the_smallest_rank_that_keeps_it(seed, energy):
    conv, _ = conv_and_input(seed, 3, 6, kernel_size=3)
    result = factorize(conv, energy=energy, layers=[""])
    assert isinstance(result, FFConv2d)
    matrix = conv.weight.detach().reshape(6, -1)
    total = matrix.square().sum().item()
    lost = {
        rank: torch.dist(matrix, _product(factorize(conv, rank=rank, layers=[""])).reshape(6, -1)).item() ** 2 / total
        for rank in range(1, 7)
    }
    assert lost[result.rank] <= 1 - energy + 1e-9
    assert result.rank == 1 or lost[result.rank - 1] > 1 - energy - 1e-9


def _product(layer: nn.Module) -> torch.Tensor:
    assert isinstance(layer, FFConv2d)
    return torch.einsum("or,rckl->ockl", layer.pointwise.weight[:, :, 0, 0], layer.spatial.weight).detach()


def test_truncation_loses_exactly_the_dropped_singular_values():
    conv, _ = conv_and_input(0, 3, 6, kernel_size=3)
    values = torch.linalg.svdvals(conv.weight.detach().reshape(6, -1))
    lost = torch.dist(conv.weight.detach(), _product(factorize(conv, rank=2, layers=[""])))
    torch.testing.assert_close(lost, values[2:].square().sum().sqrt())


def test_default_layers_are_all_with_a_kernel_but_the_first():
    model = small_model()
    result = factorize(model, rank=2)
    assert [type(m) for m in result] == [nn.Conv2d, FFConv2d, nn.Conv2d, nn.Sequential]
    assert isinstance(result.get_submodule("3.0"), FFConv2d)
    assert not any(isinstance(m, FFConv2d) for m in model.modules()), "the model given stays as it was"
    assert result(torch.randn(1, 1, 8, 8)).shape == model(torch.randn(1, 1, 8, 8)).shape


def test_what_is_factorized_already_is_left_alone():
    once = factorize(small_model(), rank=2)
    assert factorize(once, rank=1).state_dict().keys() == once.state_dict().keys()
    first = nn.Sequential(FFConv2d(1, 4, 3, rank=2), nn.Conv2d(4, 6, 3))
    assert isinstance(factorize(first, rank=1)[1], FFConv2d)


def test_rank_by_path_chooses_the_layers():
    result = factorize(small_model(), rank={"1": 3})
    assert isinstance(result[1], FFConv2d)
    assert result[1].rank == 3
    assert isinstance(result.get_submodule("3.0"), nn.Conv2d)


def test_type_and_mode_are_kept():
    model = small_model().to(torch.float64).eval()
    layer = factorize(model, rank=1)[1]
    assert layer.spatial.weight.dtype == torch.float64
    assert not layer.training
    assert all(p.requires_grad for p in layer.parameters())


def test_vanished_weights_still_factorize():
    conv = nn.Conv2d(2, 3, 3)
    nn.init.zeros_(conv.weight)
    x = torch.randn(1, 2, 5, 5)
    torch.testing.assert_close(factorize(conv, energy=0.9, layers=[""])(x), conv(x))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "exactly one of rank, energy and budget"),
        ({"rank": 1, "energy": 0.5}, "exactly one of rank, energy and budget"),
        ({"energy": 0.0}, "energy is a share"),
        ({"energy": 1.5}, "energy is a share"),
        ({"rank": 7}, r"1: rank 7 is outside 1\.\.6"),
        ({"rank": 0}, r"1: rank 0 is outside 1\.\.6"),
        ({"rank": 1, "layers": ["9"]}, "9: the model has no such module"),
        ({"rank": 1, "layers": ["3"]}, "3: only Conv2d can be factorized, this is Sequential"),
        ({"rank": {"1": 2}, "layers": ["1", "3.0"]}, "3.0: rank names no rank"),
    ],
)
def test_wrong_arguments_name_the_layer_and_the_reason(arguments, words):
    with pytest.raises(SettingError, match=words):
        factorize(small_model(), **arguments)


@pytest.mark.parametrize(
    ("conv", "words"),
    [
        (nn.Conv2d(4, 4, 3, groups=2), "groups 2"),
        (nn.Conv2d(4, 4, 3, dilation=2), "dilation"),
        (nn.Conv2d(4, 4, 3, padding="same"), "padding 'same'"),
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), "mode 'reflect'"),
    ],
)
def test_convolutions_that_have_no_such_form_are_refused(conv, words):
    with pytest.raises(SettingError, match=words):
        factorize(nn.Sequential(nn.Conv2d(1, 4, 3), conv), rank=1)
