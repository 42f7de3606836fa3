"""The peers' networks and the record of a comparison; what needs the peers' environments is the benchmark itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import heinfer
from benchmarks.peers.comparison import (
    COMPARISONS,
    EXEMPT_MARGIN,
    PREPROCESSING,
    Comparison,
    Results,
    peers,
    precision_bits,
    record,
    weights,
)
from benchmarks.peers.environment import REQUIREMENTS
from benchmarks.peers.networks import BUILDERS, LARGEST_SCORE, scores, trained
from heinfer.errors import SettingError

State = dict[str, Tensor]

ROOT = Path(__file__).parents[2]
PAGE, RESULTS = ROOT / "docs" / "peers.md", ROOT / "benchmarks" / "results" / "peers.json"


def test_the_tutorial_is_what_tenseal_documents() -> None:
    state, x = _state("tutorial")
    y = functional.conv2d(x, state["conv1.weight"], state["conv1.bias"], stride=3) ** 2
    y = _dense(state, "fc1", y.reshape(-1, 256)) ** 2
    _assert_same("tutorial", x, _dense(state, "fc2", y))


def test_lola_is_what_orion_ships() -> None:
    state, x = _state("lola")
    y = _normalised(state, "bn1", functional.conv2d(x, state["conv1.weight"], state["conv1.bias"], stride=2)) ** 2
    y = _normalised(state, "bn2", _dense(state, "fc1", y.flatten(1))) ** 2
    _assert_same("lola", x, _dense(state, "fc2", y))


def test_the_mlp_is_what_orion_ships() -> None:
    state, x = _state("mlp")
    y = _normalised(state, "bn1", _dense(state, "fc1", x.flatten(1))) ** 2
    y = _normalised(state, "bn2", _dense(state, "fc2", y)) ** 2
    _assert_same("mlp", x, _dense(state, "fc3", y))


def test_lenet_is_what_orion_ships() -> None:
    state, x = _state("lenet")
    y = x
    for number in (1, 2):
        weight, bias = state[f"conv{number}.weight"], state[f"conv{number}.bias"]
        y = _normalised(state, f"bn{number}", functional.conv2d(y, weight, bias, stride=2, padding=2)) ** 2
    y = _normalised(state, "bn3", _dense(state, "fc1", y.flatten(1))) ** 2
    _assert_same("lenet", x, _dense(state, "fc2", y))


def test_heinfer_compiles_the_network_that_the_peer_gets() -> None:
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(8, 1, 28, 28))
    module = _random("tutorial").float()
    compiled = heinfer.compile(module, images, name="tutorial", preprocessing=PREPROCESSING)
    np.testing.assert_allclose(compiled(images), scores(module, images), atol=1e-10)


def test_training_ends_with_scores_that_every_peer_can_hold() -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.uniform(size=(128, 1, 28, 28)), rng.integers(0, 10, 128)
    once, again = (trained("tutorial", images, labels, images[:16]) for _ in range(2))
    assert np.abs(scores(once, images[:16])).max() == pytest.approx(LARGEST_SCORE, rel=1e-5)
    np.testing.assert_array_equal(scores(once, images), scores(again, images))


def test_weights_keep_the_names_of_the_layers() -> None:
    assert list(weights(_random("tutorial"))) == [
        f"{n}.{k}" for n in ("conv1", "fc1", "fc2") for k in ("weight", "bias")
    ]


def test_a_record_is_flat_and_holds_both_sides() -> None:
    clear = np.array([[1.0, 0.5, -2.0], [0.25, 1.0, 0.0]])
    ours, peer = Results(), Results()
    for number, seconds in enumerate((0.01, 0.03, 0.02)):
        ours.add(((clear[number % 2] + 2**-7).tolist(), seconds))
    for number, seconds in enumerate((2.0, 4.0)):
        peer.add((clear[number][::-1].tolist(), seconds))
    made = record(_comparison(), {"key_bytes": 1, "log_qp": 1.23456}, {"key_bytes": 2}, ours, peer, clear)
    assert made == json.loads(json.dumps(made))
    assert made["eval_seconds"] == {"median": 0.02, "min": 0.01, "max": 0.03, "n": 3}
    assert (made["key_bytes"], made["peer_key_bytes"], made["log_qp"]) == (1, 2, 1.235)
    assert made["ratio_to_peer"] == pytest.approx(0.02 / 3, abs=1e-5)
    assert (made["agreements"], made["peer_agreements"], made["exempted"]) == (3, 1, 0)
    assert made["precision_bits_min"] == 7.0


def test_a_tie_is_exempt_from_agreement() -> None:
    clear = np.array([[1.0, 1.0 - EXEMPT_MARGIN / 2]])
    results = Results()
    results.add(([0.0, 1.0], 1.0))
    made = record(_comparison(), {}, {}, results, results, clear)
    assert (made["agreements"], made["exempted"], made["evaluations"]) == (0, 1, 1)


def test_precision_counts_the_bits_below_the_largest_score() -> None:
    assert precision_bits(np.array([4.0, 0.25]), np.array([4.0, 0.0])) == 4.0


def test_every_comparison_has_a_network_and_an_environment() -> None:
    for comparison in COMPARISONS:
        assert comparison.network in BUILDERS
        assert comparison.peer in REQUIREMENTS
    assert len({comparison.name for comparison in COMPARISONS}) == len(COMPARISONS)


def test_an_unknown_comparison_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="tenseal-lenet"):
        peers(tmp_path / "peers.json", only=["tenseal-lenet"])


@pytest.mark.parametrize("made", json.loads(RESULTS.read_text()), ids=lambda made: made["network"])
def test_the_page_quotes_the_results(made: dict[str, Any]) -> None:
    page = PAGE.read_text()
    for row in (_row(made, "peer_", "peer_seconds"), _row(made, "", "eval_seconds")):
        assert row in page
    assert f"1/{1 / made['ratio_to_peer']:.1f}" in page


def _row(made: dict[str, Any], side: str, seconds: str) -> str:
    """A line of the page's table, without the words it begins with."""
    time, (keys, upload, peak) = made[seconds], (made[f"{side}{k}_bytes"] / 1e6 for k in ("key", "upload", "peak"))
    return (
        f"| {1e3 * time['median']:.0f} ({1e3 * time['min']:.0f} to {1e3 * time['max']:.0f}) "
        f"| {keys:.1f} | {upload:.2f} "
        f"| {made[f'{side}precision_bits_min']:.1f} | {made[f'{side}ring_degree']} | {made[f'{side}log_qp']:.0f} "
        f"| {made[f'{side}levels']} | {made[f'{side}compile_seconds']:.0f} | {peak:.0f} |"
    )


def _comparison() -> Comparison:
    return Comparison("tenseal", "tutorial", 0.01)


def _random(name: str) -> torch.nn.Sequential:
    """With statistics of batch norms that do something."""
    torch.manual_seed(1)
    module = BUILDERS[name]().double()
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                assert part.running_mean is not None
                assert part.running_var is not None
                part.running_mean.uniform_(-1, 1)
                part.running_var.uniform_(0.5, 2)
                part.weight.uniform_(0.5, 2)
                part.bias.uniform_(-1, 1)
    return module.eval()


def _state(name: str) -> tuple[State, Tensor]:
    return dict(_random(name).state_dict()), torch.rand(2, 1, 28, 28, dtype=torch.float64)


def _assert_same(name: str, x: Tensor, expected: Tensor) -> None:
    np.testing.assert_allclose(_random(name)(x).detach().numpy(), expected.numpy(), rtol=1e-10, atol=1e-12)


def _dense(state: State, name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def _normalised(state: State, name: str, x: Tensor) -> Tensor:
    mean, variance, weight, bias = (
        state[f"{name}.{key}"].reshape(1, -1, *(1,) * (x.dim() - 2))
        for key in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / torch.sqrt(variance + 1e-5) * weight + bias
