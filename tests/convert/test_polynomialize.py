"""polynomialize: every activation in any form becomes a fitted polynomial, the model itself stays as it is."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import heinfer
from heinfer.convert import polynomialize
from heinfer.convert.polynomials.fitting import Seen, fit
from heinfer.errors import UnsupportedOperatorError
from heinfer.formats.manifest import Preprocessing
from heinfer.frontend import trace
from heinfer.nn import ChebyshevActivation

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
