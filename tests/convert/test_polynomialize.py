"""polynomialize: every activation in any form becomes a fitted polynomial, the model itself stays as it is."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import heinfer
from heinfer.convert import Budget, Tuning, polynomialize
from heinfer.convert.polynomials.fitting import Seen, fit
from heinfer.errors import PlanError, SettingError, UnsupportedOperatorError
from heinfer.formats.manifest import Preprocessing
from heinfer.frontend import trace
from heinfer.lowering.circuits import cost_of
from heinfer.network.folding import fold
from heinfer.nn import ChebyshevActivation
from heinfer.planner.requirements import DEFAULT

X = torch.tensor(np.random.default_rng(0).normal(size=(200, 2, 8, 8)), dtype=torch.float32)


class Net(nn.Module):
    """A convolution, a function of it, a dense layer."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc = nn.Conv2d(2, 4, 3, padding=1), nn.Linear(256, 3)
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.flatten(self.function(self.conv(x)), 1))


ACTIVATIONS = [
    nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(), nn.PReLU(4), nn.ELU(), nn.GELU(), nn.SiLU(), nn.Tanh(), nn.Sigmoid(),
    nn.Hardsigmoid(), nn.Hardswish(), nn.Softplus(), nn.Mish(),
]  # fmt: skip
FUNCTIONS = [
    functional.relu, torch.relu, lambda x: x.relu(), lambda x: functional.relu(x, inplace=True), lambda x: x.tanh(),
    functional.gelu, functional.silu, lambda x: functional.leaky_relu(x, 0.2), lambda x: torch.clamp(x, 0, 6),
    torch.sigmoid, functional.hardswish, lambda x: x.sigmoid(), torch.tanh, functional.relu6, nn.functional.mish,
]  # fmt: skip


def scores(module: nn.Module, x: torch.Tensor = X) -> torch.Tensor:
    with torch.no_grad():
        return module.eval()(x)


@pytest.mark.parametrize("activation", [*ACTIVATIONS, *FUNCTIONS])
def test_an_activation_becomes_a_polynomial(activation: Callable[[torch.Tensor], torch.Tensor]) -> None:
    model = Net(activation)
    before = scores(model).clone()
    module, report = polynomialize(model, X, degree=7)
    [row] = report.activations
    assert (row.degree, row.levels) == (7, 3)
    assert row.error < 0.07
    assert row.outside == 0
    assert (scores(module) - before).abs().max() < 0.1 * before.abs().max()
    assert sum(isinstance(part, ChebyshevActivation) for part in module.modules()) == 1
    assert torch.equal(scores(model), before)


def test_a_shared_activation_has_a_polynomial_at_every_call() -> None:
    shared = nn.ReLU()
    model = nn.Sequential(nn.Conv2d(2, 3, 3), shared, nn.Conv2d(3, 3, 3), shared, nn.Flatten(), nn.Linear(48, 2))
    module, report = polynomialize(model, X)
    assert len(report.activations) == 2
    first, second = (part for part in module.modules() if isinstance(part, ChebyshevActivation))
    assert not torch.equal(first.coefficients, second.coefficients)


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(2),
        nn.MaxPool2d(3, 2, padding=1),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        lambda x: functional.max_pool2d(x, 3, stride=2, padding=1),
        lambda x: torch.max_pool2d(x, 2),
    ],
)
def test_a_max_pool_becomes_an_average_of_the_same_windows(pool: Callable[[torch.Tensor], torch.Tensor]) -> None:
    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pool = nn.Conv2d(2, 3, 3), pool

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.flatten(self.pool(self.conv(x)), 1)

    module, report = polynomialize(Pooled(), X)
    assert report.pools == 1
    assert scores(module).shape == scores(Pooled()).shape
    flat = torch.full_like(X, 0.5)
    module, _ = polynomialize(nn.Sequential(pool, nn.Flatten()) if isinstance(pool, nn.Module) else Pooled(), X)
    if isinstance(pool, nn.Module):
        assert torch.allclose(scores(module, flat), torch.tensor(0.5))  # padding is not counted


class Ended(nn.Module):
    """A convolution, what a function makes of it and of a parameter, flat."""

    def __init__(self, function: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.gate = nn.Conv2d(2, 3, 3, padding=1), nn.Parameter(torch.randn(1, 3, 1, 1))
        self.rectify, self.pool = nn.ReLU(inplace=True), nn.AdaptiveMaxPool2d((1, 2))
        self.dilated = nn.MaxPool2d(3, 1, dilation=2)
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.flatten(self.function(self, self.conv(x)), 1)


@pytest.mark.parametrize(
    "function",
    [
        lambda _, x: functional.relu(x, inplace=True) + x,
        lambda _, x: torch.relu_(x) + x,
        lambda _, x: x.relu_() + x,
        lambda model, x: model.rectify(x) + x,
    ],
)
def test_what_reads_a_tensor_changed_in_place_reads_the_polynomial(
    function: Callable[[nn.Module, torch.Tensor], torch.Tensor],
) -> None:
    model = Ended(function)
    before = scores(model)
    module, report = polynomialize(model, X, degree=15)
    assert len(report.activations) == 1
    assert (scores(module) - before).abs().max() < 0.1 * before.abs().max()


def test_what_has_no_average_stays_as_it_is() -> None:
    for function in (
        lambda _, x: functional.max_pool2d(x, 3, dilation=2),
        lambda _, x: functional.max_pool2d(x, 2, return_indices=True)[0],
        lambda model, x: model.dilated(x),
    ):
        module, report = polynomialize(Ended(function), X)
        assert report.pools == 0
        assert torch.equal(scores(module), scores(Ended(function)))


@pytest.mark.parametrize(
    ("pool", "average"),
    [
        (lambda _, x: functional.adaptive_max_pool2d(x, 2), nn.AdaptiveAvgPool2d(2)),
        (lambda model, x: model.pool(x), nn.AdaptiveAvgPool2d((1, 2))),
        (lambda _, x: functional.max_pool2d(x, (2, 4), ceil_mode=True), nn.AvgPool2d((2, 4), ceil_mode=True)),
    ],
)
def test_pools_average_the_windows_that_they_had(
    pool: Callable[[nn.Module, torch.Tensor], torch.Tensor], average: nn.Module
) -> None:
    module, report = polynomialize(Ended(pool), X)
    assert report.pools == 1
    with torch.no_grad():
        expected = torch.flatten(average(Ended(pool).conv(X)), 1)
    torch.testing.assert_close(scores(module), expected)


def test_a_functional_prelu_has_the_slopes_of_its_parameter() -> None:
    class Sloped(Ended):
        def __init__(self) -> None:
            super().__init__(lambda model, x: functional.prelu(x, model.slopes))
            self.slopes = nn.Parameter(torch.full((3,), 0.25))

    expected = scores(Sloped())
    module, report = polynomialize(Sloped(), X, degree=15)
    assert [row.activation for row in report.activations] == ["prelu"]
    assert (scores(module) - expected).abs().max() < 0.1 * expected.abs().max()


def test_a_function_of_parameters_alone_is_no_activation() -> None:
    gated = Ended(lambda model, x: torch.relu(x * torch.sigmoid(model.gate)))
    _, report = polynomialize(gated, X)
    assert [row.activation for row in report.activations] == ["relu"]


def test_batch_normalisation_is_put_in_before_tuning_where_there_is_none() -> None:
    layers = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU()
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64, 6), nn.Tanh(), nn.Linear(6, 3))
    tuned, _ = polynomialize(model, X, tuning=Tuning(epochs=1))
    norms = [type(part) for part in tuned.modules() if "BatchNorm" in type(part).__name__]
    assert sorted(norms, key=str) == [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm2d]


@pytest.mark.parametrize("axes", [2, 3, 4, 5])
def test_normalisation_by_what_was_seen_changes_nothing(axes: int) -> None:
    seen = Seen()
    x = 3 + 2 * torch.randn(50, 4, *(3,) * (axes - 2))
    seen(x[:20])
    seen(x[20:])
    torch.testing.assert_close(scores(seen.norm(), x), x)


def test_what_is_held_out_is_reported_and_not_learned_from() -> None:
    model = two()
    strange = torch.cat([X[:150], 100 * X[150:]])
    labels = scores(model, strange).argmax(1)
    tuning = Tuning(epochs=1, held_out=50)
    tuned, report = polynomialize(model, strange, labels=labels, tuning=tuning)
    alone, _ = polynomialize(model, X[:150], tuning=Tuning(epochs=1))
    assert all(torch.equal(tuned.state_dict()[name], value) for name, value in alone.state_dict().items())
    assert report.activations[0].high < 10
    assert report.activations[0].outside > 0.5
    with pytest.raises(SettingError, match="of 200 inputs 200 cannot be held out"):
        polynomialize(model, X, tuning=Tuning(epochs=1, held_out=200))


def test_a_checkpoint_of_another_network_is_not_taken_up(tmp_path: Path) -> None:
    other = two()
    for parameter in other.parameters():
        parameter.data.neg_()
    tuning = Tuning(epochs=2, checkpoint=tmp_path / "tuned")
    polynomialize(two(), X, tuning=tuning)
    tuned, _ = polynomialize(other, X, tuning=tuning)
    expected, _ = polynomialize(other, X, tuning=Tuning(epochs=2))
    assert torch.equal(scores(tuned), scores(expected))


def test_augmentation_is_drawn_from_the_seed() -> None:
    def noisy(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return x + 0.1 * torch.randn(x.shape, generator=generator)

    plain, one, again = (
        scores(polynomialize(two(), X, tuning=Tuning(epochs=1, augment=augment)).module)
        for augment in (None, noisy, noisy)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, plain)


@pytest.mark.parametrize("function", [functional.relu_, lambda x: x.relu_(), nn.ReLU(inplace=True)])
def test_what_is_changed_in_place_is_read_changed(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    class Changed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.fc, self.act = nn.Conv2d(2, 4, 3), nn.Linear(144, 3), function

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            self.act(y)
            return self.fc(torch.flatten(y, 1))

    expected = scores(Changed())
    module, report = polynomialize(Changed(), X, degree=15)
    assert len(report.activations) == 1
    assert (scores(module) - expected).abs().max() < 0.1 * expected.abs().max()


def test_hard_swish_is_exact_where_it_is_a_polynomial() -> None:
    seen = Seen()
    seen(torch.linspace(-2.7, 2.7, 1000)[None])
    found = fit(functional.hardswish, seen, 2)
    assert found.error < 1e-6
    assert found.worst < 1e-5


class Swish(nn.Module):
    """Values within -3 to 3, a hard-swish in one of its forms, flat."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.flatten(self.function(x), 1)


@pytest.mark.parametrize("function", [nn.Hardswish(), functional.hardswish, nn.Hardswish(inplace=True)])
def test_a_hard_swish_that_sees_no_more_than_3_is_itself(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    data = torch.linspace(-3, 3, 400, dtype=torch.float64).reshape(100, 1, 2, 2)
    module, report = polynomialize(Swish(function), data)
    assert (report.activations[0].low, report.activations[0].high) == (-3, 3)
    assert report.activations[0].degree == 2
    assert (scores(module, data.clone()) - scores(Swish(functional.hardswish), data.clone())).abs().max() < 1e-6


@pytest.mark.parametrize("degree", [2, 3, 7, 15])
def test_a_higher_degree_fits_better(degree: int) -> None:
    seen = Seen()
    seen(torch.tensor(np.random.default_rng(1).normal(size=(1, 4000))))
    assert fit(torch.relu, seen, degree).error < {2: 0.2, 3: 0.2, 7: 0.08, 15: 0.04}[degree]
    assert fit(torch.relu, seen, degree).error <= fit(torch.relu, seen, degree - 1).error


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


def test_tuning_learns_from_the_model_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    model, labels = two(), scores(two()).argmax(1)
    _, fitted = polynomialize(model, X, labels=labels)
    tuned, report = polynomialize(model, X, labels=labels, tuning=Tuning(epochs=4))
    assert report.accuracy
    assert fitted.accuracy
    assert report.accuracy[1] == fitted.accuracy[2]
    assert report.agreement[1] >= report.agreement[0]
    kept = tmp_path / "tuned"
    polynomialize(model, X, tuning=Tuning(epochs=4, checkpoint=kept))
    assert kept.exists()
    again, _ = polynomialize(model, X, tuning=Tuning(epochs=4, checkpoint=kept))
    assert torch.allclose(scores(again), scores(tuned), atol=1e-6)


def test_the_report_is_a_table() -> None:
    model = two()
    _, report = polynomialize(model, X, labels=scores(model).argmax(1))
    lines = str(report).splitlines()
    assert lines[0].split() == ["activation", "is", "interval", "degree", "levels", "error", "outside"]
    assert lines[1].startswith("1 ")
    assert lines[-3].startswith("accuracy: 100.00% before")
    assert lines[-2] == "that is of the data that it was fitted to, none held out"
    assert lines[-1].startswith("nothing was tuned: what calibration alone costs: ")
    assert f"{1 - report.agreement[0]:.2%} of the labels differ" in lines[-1]
    _, report = polynomialize(model, X, tuning=Tuning(epochs=1, held_out=20))
    assert str(report).splitlines()[-1] == "that is of 20 inputs held out"
    assert f"{report.agreement[1]:.2%} tuned" in str(report)


def test_what_cannot_be_followed_is_refused() -> None:
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if float(x.sum()) > 0 else -x

    with pytest.raises(UnsupportedOperatorError, match=r"cannot be followed by torch.fx"):
        polynomialize(Branching(), X)


def test_a_network_with_relu_compiles_afterwards() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3, 2, padding=1), nn.Flatten(),
        nn.Linear(16, 3),
    )  # fmt: skip
    module, _ = polynomialize(model, X)
    inputs = X.numpy().astype(np.float64)
    low, high = float(inputs.min()), float(inputs.max())
    declared = Preprocessing(divisor=1, mean=(0.0,), std=(1.0,), low=low, high=high, kind="values")
    compiled = heinfer.compile(module, inputs, name="relu", preprocessing=declared)
    assert np.abs(compiled(inputs[:8]) - scores(module, X[:8]).numpy()).max() < 1e-4
    assert sum(name == "Square" for name in (type(n.operator).__name__ for n in compiled.network.nodes)) == 1


def test_a_quadratic_series_takes_one_level() -> None:
    series = ChebyshevActivation(torch.tensor([[0.3, 0.5, 0.2]]), torch.tensor([0.5]), torch.tensor([4.0]))
    network = trace(nn.Sequential(series.double()), (3, 2, 2))
    assert [type(node.operator).__name__ for node in network.nodes] == ["Polynomial"]
    x = torch.randn(5, 3, 2, 2, dtype=torch.float64)
    assert np.abs(network(x.numpy()) - series(x).detach().numpy()).max() < 1e-12
