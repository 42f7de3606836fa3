"""The networks of torchvision: what their record says, and what is done to a network before it is imported."""

from importlib.util import find_spec

import pytest
import torch
from recorded_torchvision import of_size
from torch import nn

from benchmarks.torchvision.command import differs
from benchmarks.torchvision.installed import models
from benchmarks.torchvision.networks import NAMES, REFUSED, prepared
from benchmarks.torchvision.small import narrowed
from heinfer.errors import SettingError
from heinfer.frontend import trace

MOST_MB = 8000


def test_every_network_is_what_torch_computes():
    found = {one["network"]: one for one in of_size("own")}
    for name in found.keys() & set(NAMES):
        assert found[name]["largest_score"] > 0
        assert found[name]["difference_float64"] <= 1e-9
        assert found[name]["difference_float32"] <= 1e-4
        assert found[name]["import_peak_mb"] <= MOST_MB
    assert set(found) <= {*NAMES, *REFUSED}


REFUSAL = {"vit_b_16": "MultiheadAttention has no encrypted form", "convnext_tiny": "layer_norm has no encrypted form"}


def test_what_cannot_be_is_refused_by_name():
    for one in of_size("own"):
        if one["network"] in REFUSED:
            assert REFUSAL[one["network"]] in one["refusal"]


def test_scores_are_as_precise_as_predicted():
    for one in of_size("small"):
        if "bits_measured" in one:
            assert one["difference_cleartext"] <= 1e-9
            assert one["bits_measured"] >= one["bits_predicted"] - 0.5, one["network"]
            assert one["same_label"] == one["images"], one["network"]


@pytest.mark.parametrize(
    ("record", "fails"),
    [
        ({"difference_float64": 1e-15, "difference_float32": 1e-6}, False),
        ({"difference_float64": 1e-8, "difference_float32": 1e-6}, True),
        ({"difference_float32": float("nan")}, True),
        ({"failure": "not done in 1 minutes"}, False),
    ],
)
def test_a_difference_beyond_rounding_fails(record, fails):
    assert differs(record) == fails


@pytest.mark.skipif(find_spec("torchvision") is not None, reason="torchvision is installed")
def test_what_to_install_is_said():
    with pytest.raises(SettingError, match="torchvision is not installed: pip install --no-deps"):
        models()


class Residual(nn.Module):
    """A grouped convolution beside an identity."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.branch = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8))
        self.pool, self.last = nn.MaxPool2d(2), nn.Linear(8 * 9, 10)

    def forward(self, x):
        y = self.first(x)
        y += self.branch(y)
        return self.last(self.pool(torch.relu(y)).flatten(1))


def test_narrowed_layers_fit_and_are_imported():
    torch.manual_seed(0)
    module = Residual()
    narrow = narrowed(module, 4)
    assert [p.shape[0] for p in narrow.parameters() if p.dim() == 4] == [2, 2]
    assert narrow.branch[0].groups == 2
    x = torch.randn(16, 3, 8, 8)
    found = prepared(narrow.eval(), x)
    assert (found.activations, found.pools) == (2, 1)
    assert float(narrow.branch[1].weight.detach()[0]) == pytest.approx(0.2), "a branch beside an identity"
    with torch.no_grad():
        expected = found.module.double()(x.double()).numpy()
    assert abs(trace(found.module, (3, 8, 8))(x.double().numpy()) - expected).max() <= 1e-12 * abs(expected).max()
