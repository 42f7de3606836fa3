"""Degrees of polynomials: given, for so many levels, for a predicted time."""

import numpy as np
import pytest
import torch
from torch import nn

from heinfer.convert import Budget, polynomialize
from heinfer.errors import PlanError, SettingError
from heinfer.frontend import trace
from heinfer.lowering.circuits import cost_of
from heinfer.network.folding import fold
from heinfer.planner.requirements import DEFAULT

X = torch.tensor(np.random.default_rng(0).normal(size=(200, 2, 8, 8)), dtype=torch.float32)


def two() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4, 3)
    )


def test_degrees_are_raised_while_there_are_levels() -> None:
    _, report = polynomialize(two(), X, levels=4)
    assert sum(row.levels for row in report.activations) == 4
    with pytest.raises(SettingError, match="activations one after another take 2 levels at least, not 1"):
        polynomialize(two(), X, levels=1)


def test_levels_are_of_one_path_and_not_of_all() -> None:
    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.one, self.other, self.fc = nn.Conv2d(2, 4, 3), nn.Conv2d(2, 4, 3), nn.Linear(144, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(torch.flatten(torch.relu(self.one(x)) + torch.tanh(self.other(x)), 1))

    _, report = polynomialize(Beside(), X, levels=3)
    assert [row.degree for row in report.activations] == [7, 7]
    assert report.depth == 3
    _, report = polynomialize(Beside(), X, levels=3, degree={"relu": 2})
    assert [row.degree for row in report.activations] == [2, 7]


def test_degrees_are_the_highest_whose_predicted_time_keeps_to_a_budget() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
    data = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
    told: list[tuple[str, int, int]] = []
    _, most = polynomialize(model, data, budget=Budget(1e6), tell=lambda *what: told.append(what))
    assert [row.degree for row in most.activations] == [15, 15]
    assert most.milliseconds is not None
    plans = [what[1:] for what in told if what[0] == "plan"]
    assert plans == [(n, 4) for n in range(len(plans))]
    _, less = polynomialize(model, data, budget=Budget(0.7 * most.milliseconds))
    assert less.milliseconds is not None
    assert less.milliseconds <= 0.7 * most.milliseconds
    for levels in range(less.depth + 1, most.depth + 1):
        richer, _ = polynomialize(model, data, levels=levels)
        cost = cost_of(fold(trace(richer, (8,))), DEFAULT)
        assert cost.predicted[DEFAULT.backend] > 0.7 * most.milliseconds
    with pytest.raises(PlanError, match=r"ms, predicted, and 0\.1 ms are allowed"):
        polynomialize(model, data, budget=Budget(0.1))
    with pytest.raises(SettingError, match="give one of them"):
        polynomialize(model, data, budget=Budget(1), levels=3)


def test_degrees_go_by_path() -> None:
    _, report = polynomialize(two(), X, degree={"1": 3})
    assert [row.degree for row in report.activations] == [3, 2]
    with pytest.raises(SettingError, match="there is no activation 0: there are 1, 3"):
        polynomialize(two(), X, degree={"0": 3})
    with pytest.raises(SettingError, match="a degree is 1 to 15, not 16"):
        polynomialize(two(), X, degree=16)
