"""Networks of which people have trained weights are those they are named after."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from benchmarks.support.pretrained import mobilenet_v1, mobilenet_v2, resnet18, squeezenet1_1, squeezenet_cifar
from heinfer.nn import PolyActivation


@pytest.mark.parametrize(
    ("build", "side", "parameters"),
    [
        (resnet18, 224, 11_689_512),  # of torchvision, as its documentation gives them
        (squeezenet1_1, 224, 1_235_496),
        (mobilenet_v2, 224, 3_504_872),
        (mobilenet_v1, 224, 4_231_976),  # 4.2 million in table 8 of arXiv 1704.04861
        (squeezenet_cifar, 32, 122_986),  # 0.12 million in its author's table
    ],
)
def test_a_network_has_the_parameters_of_its_name(build: Callable[[], nn.Module], side: int, parameters: int) -> None:
    module = build().eval()
    activations = sum(
        p.numel() for part in module.modules() if isinstance(part, PolyActivation) for p in part.parameters()
    )
    assert sum(p.numel() for p in module.parameters()) - activations == parameters
    with torch.no_grad():
        scores = module(torch.zeros(1, 3, side, side))
    assert scores.shape == (1, 10 if side == 32 else 1000)
