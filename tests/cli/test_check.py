"""heinfer check: a verdict for every layer, the cost of the whole, and an exit code for scripts."""

import numpy as np
import pytest
import torch
from command_line import run
from torch import nn

import heinfer
import heinfer.convert
from heinfer.errors import CompileError
from heinfer.frontend import Verdict

NETWORKS = """
from torch import nn

def relu():
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 3), nn.Softmax(1)
    )

plain = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))

def norm():
    return nn.Sequential(nn.GroupNorm(1, 1), nn.Flatten(), nn.Linear(64, 2), nn.GELU())
"""
TWO = """
import torch
from torch import nn

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.picture, self.record, self.mask = nn.Conv2d(1, 2, 3), nn.Linear(4, 3), nn.Linear(11, 4)

    def forward(self, image, record):
        x = torch.cat([self.picture(image).flatten(1), torch.relu(self.record(record))], 1)
        return x.sum(1, keepdim=True), self.mask(x)
"""
SHAPES = {"relu": "1,8,8", "plain": "1,4,4", "norm": "1,8,8"}
CODES = {"relu": 1, "plain": 0, "norm": 2}


@pytest.fixture
def networks(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checked_networks.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", CODES)
def test_the_exit_code_is_the_verdict(name: str, networks: None) -> None:
    code, said, _ = run("check", f"checked_networks:{name}", "--shape", SHAPES[name])
    assert code == CODES[name]
    assert ("evaluation keys" in said) == (name != "norm")
    assert ("GroupNorm has no encrypted form" in " ".join(said.split())) == (name == "norm")


def test_a_program_says_its_shape(tmp_path) -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(18, 3)).eval()
    torch.export.save(torch.export.export(module, (torch.zeros(1, 1, 5, 5),)), tmp_path / "net.pt2")
    code, said, _ = run("check", str(tmp_path / "net.pt2"))
    assert code == 0
    assert "Conv2d" in said


@pytest.fixture
def two(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checked_two.py").write_text(TWO)
    monkeypatch.chdir(tmp_path)


def test_several_inputs_and_outputs_are_checked(two: None) -> None:
    code, said, _ = run("check", "checked_two:Two", "--shape", "image=1,4,4", "--shape", "record=4")
    assert code == 1
    assert "server memory" in said
    assert "1 products of ciphertexts deep: 3 levels of the 62" in " ".join(said.split())
    assert "of_the_user" not in said


@pytest.mark.filterwarnings("ignore::heinfer.errors.NoiseWarning")
def test_with_calibration_the_precision_is_known(two: None) -> None:
    random = np.random.default_rng(0)
    np.savez("inputs.npz", image=random.random((40, 1, 4, 4)), record=random.normal(size=(40, 4)))
    torch.manual_seed(0)
    code, said, _ = run("check", "checked_two:Two", "--calibration", "inputs.npz")
    assert code == 1
    assert "bits predicted, worst of 200 images" in said
    assert "labels as before" in said
    assert "record (4,), values" in said


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (("weights.pt", "--shape", "1,4,4"), "holds Python objects"),
        (("nowhere", "--shape", "1,4,4"), "is no .onnx or .pt2 file"),
        (("nowhere:net", "--shape", "1,4,4"), "cannot be found"),
        (("checked_networks:plain",), "give --shape"),
        (("checked_networks:plain", "--shape", "1;4"), "whole numbers with commas"),
        (("checked_networks:plain", "--shape", "1,4,5"), "reduction dim"),
        (("checked_networks:plain", "--shape", "a=1,4", "--shape", "a=4"), "once for each name"),
        (("checked_networks:plain", "--calibration", "checked_networks.py"), "numpy.save"),
    ],
)
def test_what_cannot_be_checked_is_said(arguments: tuple[str, ...], cause: str, networks: None) -> None:
    code, _, said = run("check", *arguments)
    assert code == 2
    assert cause in said


def test_a_check_is_of_every_call() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.GELU(), nn.Flatten(), nn.Linear(72, 2))
    found = heinfer.check(network, (1, 8, 8))
    assert [(call.path, call.verdict) for call in found.assumed.calls] == [
        ("0", Verdict.AS_IS),
        ("1", Verdict.AS_IS),
        ("2", Verdict.CHANGES),
        ("4", Verdict.AS_IS),
    ]
    assert (found.products, found.refusal) == (1, "")
    assert found.cost
    assert found.cost.input_level == 3


@pytest.mark.filterwarnings("ignore::heinfer.errors.NoiseWarning")
def test_calibration_compiles_what_is_checked() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.SiLU(), nn.Flatten(), nn.Linear(72, 2))
    inputs = np.random.default_rng(0).random((40, 1, 8, 8))
    found, planned = heinfer.check(network, calibration=inputs), heinfer.check(network, (1, 8, 8))
    assert found.model
    assert found.model.report.precision
    assert found.cost
    assert planned.cost
    assert found.cost.counts == planned.cost.counts
    assert found.cost.memory_bytes == planned.cost.memory_bytes
    assert found.polynomials
    assert [a.path for a in found.polynomials.activations] == ["1"]
    assert planned.polynomials is None


def test_what_noise_drowns_is_refused_with_the_layer() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    inputs = np.random.default_rng(0).random((40, 1, 4, 4))
    found = heinfer.check(network, requirements=heinfer.Requirements(precision_bits=60), calibration=inputs)
    assert found.cost is None
    assert "bits are asked for" in found.refusal


@pytest.mark.parametrize(("shape", "calibration"), [(None, None), ((1, 4, 5), np.zeros((2, 1, 4, 4)))])
def test_a_shape_that_is_missing_or_another_is_refused(shape, calibration) -> None:
    with pytest.raises(CompileError, match="input_shape"):
        heinfer.check(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), shape, calibration=calibration)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.other(torch.relu(self.one(x))) + x)


def test_a_residual_network_takes_the_levels_that_check_says() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), Block(), Block(), nn.Flatten(), nn.Linear(72, 3)).eval()
    polynomials, _ = heinfer.convert.polynomialize(network, torch.randn(64, 1, 8, 8))
    before, after = heinfer.check(network, (1, 8, 8)).cost, heinfer.check(polynomials, (1, 8, 8)).cost
    assert before
    assert after
    assert (before.input_level, before.counts.ct_ct_mults) == (after.input_level, after.counts.ct_ct_mults)
