"""The reference networks: shapes, parameters, names, and that they compile."""

import pytest
import torch
from torch import nn

from heinfer.convert import circulant, factorize
from heinfer.errors import SettingError
from heinfer.frontend import trace
from heinfer.nn import BlockCirculantConv2d, BlockCirculantLinear, FFConv2d
from heinfer.zoo import NETWORKS
from heinfer.zoo.registry import lineage, reference
from heinfer.zoo.training import train

CIRCULANT = (BlockCirculantConv2d, BlockCirculantLinear)
FACTORIZED = [name for name in NETWORKS if reference(name).base]


def shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Of one image, after every layer."""
    network = reference(name)
    x, seen = torch.zeros(1, *network.data.shape), {}
    for path, layer in network.build().eval().named_children():
        x = layer(x)
        seen[path] = tuple(x.shape[1:])
    return seen


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mnist-plain", {"conv1": (8, 14, 14), "conv2": (32, 7, 7), "flatten": (1568,)}),
        ("lola-mnist", {"conv1": (5, 13, 13), "flatten": (845,), "fc1": (100,)}),
        (
            "lenet5-mnist",
            {"conv1": (6, 28, 28), "pool1": (6, 14, 14), "conv2": (16, 10, 10), "flatten": (400,), "fc1": (120,)},
        ),
        ("lola-cifar", {"conv1": (83, 14, 14), "conv2": (163, 7, 7), "flatten": (7987,)}),
        ("cifar-resnet", {"conv1": (16, 16, 16), "block1": (16, 16, 16), "block2": (32, 8, 8), "flatten": (512,)}),
        ("cifar-fast", {"conv1": (32, 16, 16), "conv2": (64, 8, 8), "conv3": (64, 4, 4), "flatten": (1024,)}),
        ("cifar-accurate", {"block1": (32, 16, 16), "block2": (64, 8, 8), "conv4": (128, 8, 8), "pool": (128, 4, 4)}),
        ("cifar-plain", {"conv1": (32, 16, 16), "conv2": (64, 16, 16), "conv3": (128, 8, 8), "flatten": (2048,)}),
    ],
)
def test_tensors_have_the_sizes_that_are_compared_with_others(name, expected):
    found = shapes(name)
    assert {path: found[path] for path in expected} == expected


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_gives_ten_scores(name):
    assert list(shapes(name).values())[-1] == (10,)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_has_layers_that_can_be_encrypted(name):
    network = reference(name)
    traced = trace(network.build().eval(), network.data.shape)
    assert traced.output_shape == (10,)


@pytest.mark.parametrize("name", FACTORIZED)
def test_a_factorized_network_is_its_base_with_convolutions_factorized(name):
    network = reference(name)
    assert network.base is not None
    module, base = network.build(), reference(network.base).build()
    ranks = {path: part.rank for path, part in module.named_modules() if isinstance(part, FFConv2d)}
    blocks = {path: part.block for path, part in module.named_modules() if isinstance(part, CIRCULANT)}
    assert bool(ranks) != bool(blocks)
    made = factorize(base, rank=ranks) if ranks else circulant(base, blocks)
    assert {k: v.shape for k, v in made.state_dict().items()} == {k: v.shape for k, v in module.state_dict().items()}
    assert [(p.stride, p.padding) for p in made.modules() if isinstance(p, nn.Conv2d)] == [
        (p.stride, p.padding) for p in module.modules() if isinstance(p, nn.Conv2d)
    ]


def test_ranks_and_block_sizes_are_the_documented_ones():
    found = {n: [p.rank for p in reference(n).build().modules() if isinstance(p, FFConv2d)] for n in FACTORIZED}
    ranks = {name: of for name, of in found.items() if of}
    assert ranks == {"mnist-ffconv": [4], "lola-cifar-ffconv": [16], "cifar-ffconv": [16, 32]}
    found = {n: [p.block for p in reference(n).build().modules() if isinstance(p, CIRCULANT)] for n in FACTORIZED}
    assert {name: of for name, of in found.items() if of} == {"lola-mnist-falcon": [16], "lola-cifar-falcon": [32]}


def test_a_name_can_say_another_rank_or_block_size():
    network = reference("lola-cifar-ffconv@6")
    assert (network.name, network.base) == ("lola-cifar-ffconv@6", "lola-cifar")
    assert [p.rank for p in network.build().modules() if isinstance(p, FFConv2d)] == [6]
    assert [one.name for one in lineage("lola-cifar-falcon@8")] == ["lola-cifar", "lola-cifar-falcon@8"]
    blocks = [p.block for p in reference("lola-cifar-falcon@8").build().modules() if isinstance(p, CIRCULANT)]
    assert blocks == [8]


@pytest.mark.parametrize("name", ["lola-cifar@8", "lola-cifar-ffconv@", "lola-cifar-ffconv@0", "mnist-ffconv@four"])
def test_a_size_that_cannot_be_is_refused(name):
    with pytest.raises(SettingError, match=f"no network '{name}': .* or NAME@SIZE of mnist-ffconv, "):
        reference(name)


def test_the_base_of_a_factorized_network_is_trained_before_it():
    assert [one.name for one in lineage("mnist-ffconv")] == ["mnist-plain", "mnist-ffconv"]
    assert [one.name for one in lineage("mnist-plain")] == ["mnist-plain"]


def test_an_unknown_network_names_the_known_ones():
    with pytest.raises(SettingError, match="no network 'lenet': choose one of mnist-plain, mnist-ffconv"):
        reference("lenet")


def test_a_structure_cannot_be_trained(tmp_path):
    with pytest.raises(SettingError, match="cifar-resnet has no recipe"):
        train("cifar-resnet", out=tmp_path)
