"""heinfer check: a verdict for every layer, the cost of the whole, and an exit code for scripts."""

import pytest
import torch
from command_line import run
from torch import nn

import heinfer
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


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (("weights.pt", "--shape", "1,4,4"), "holds Python objects"),
        (("nowhere", "--shape", "1,4,4"), "is no .onnx or .pt2 file"),
        (("nowhere:net", "--shape", "1,4,4"), "cannot be found"),
        (("checked_networks:plain",), "give --shape"),
        (("checked_networks:plain", "--shape", "1;4"), "whole numbers with commas"),
        (("checked_networks:plain", "--shape", "1,4,5"), "reduction dim"),
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
