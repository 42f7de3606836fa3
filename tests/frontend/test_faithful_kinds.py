"""What a module computes in a way of its own, or on other inputs than those of the calibration, is refused."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize

import heinfer
from heinfer.compiler import compile as compiler
from heinfer.errors import CompileError
from heinfer.formats.manifest import Preprocessing
from heinfer.network.ir import Network
from heinfer.nn import PolyActivation

Array = np.ndarray
RANGE = Preprocessing(divisor=255, mean=(0.0,), std=(1.0,), low=0.0, high=1.0)
BRIGHT = np.random.default_rng(0).random((64, 1, 6, 6))
DARK = BRIGHT * 0.3


class Planning(Exception):  # noqa: N818
    """Planning begins, which takes long, with this network."""


@pytest.fixture(autouse=True)
def no_planning(monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(network: Network, *_: object, **__: object) -> None:
        raise Planning(network)

    monkeypatch.setattr(compiler, "balance", begin)


def compiled(module: nn.Module, calibration: Array = DARK, preprocessing: Preprocessing = RANGE) -> Network:
    """The network that would be planned."""
    with pytest.raises(Planning) as planned:
        heinfer.compile(module, calibration, name="small", preprocessing=preprocessing)
    return planned.value.args[0]


def refused(module: nn.Module, message: str, calibration: Array = DARK) -> None:
    with pytest.raises(CompileError, match=message):
        heinfer.compile(module, calibration, name="small", preprocessing=RANGE)


def assert_same(module: nn.Module, preprocessing: Preprocessing = RANGE) -> None:
    network = compiled(module, preprocessing=preprocessing)
    module.eval()
    with torch.no_grad():
        kind = next(module.parameters()).dtype
        expected = module(torch.tensor(BRIGHT, dtype=kind)).double().numpy()
    assert np.abs(network(BRIGHT) - expected).max() <= 1e-5 * np.abs(expected).max()


def dense() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 5))


def convolutional() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), PolyActivation(4), nn.Flatten(), nn.Linear(16, 5))


class Negative(nn.DataParallel):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -super().forward(x)


class Flipped(nn.DataParallel):
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return super().__call__(x.flip(-1))


def patched(wrapper: nn.Module) -> nn.Module:
    before = wrapper.forward
    wrapper.forward = lambda x: -before(x)
    return wrapper


def negating(graph: torch.fx.GraphModule, _: Any) -> Callable[..., list[torch.Tensor]]:
    return lambda *x: [-y for y in graph(*x)]


def compiled_in_place(module: nn.Module) -> nn.Module:
    module.compile(backend=negating)
    return module


PARALLEL = {
    "forward": lambda: Negative(dense()),
    "__call__": lambda: Flipped(dense()),
    "forward of a part": lambda: nn.Sequential(Negative(dense())),
    "forward of the instance": lambda: patched(nn.DataParallel(dense())),
}
COMPILED = {
    "forward of the instance": lambda: patched(torch.compile(dense())),
    "backend": lambda: torch.compile(dense(), backend=negating),
    "backend in place": lambda: compiled_in_place(dense()),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", PARALLEL)
def test_wrappers_that_do_more_are_followed(name: str) -> None:
    assert_same(PARALLEL[name]())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", COMPILED)
def test_what_is_compiled_into_something_else_is_refused(name: str) -> None:
    refused(COMPILED[name](), "(?s)^the model itself: .*(give the module inside|_compiled_call_impl = None)")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("backend", ["inductor", "eager", "aot_eager"])
def test_backends_of_torch_are_looked_into(backend: str) -> None:
    expected = compiled(dense())(BRIGHT)
    assert np.array_equal(compiled(torch.compile(dense(), backend=backend))(BRIGHT), expected)
    module = dense()
    module.compile(backend=backend)
    assert np.array_equal(compiled(module)(BRIGHT), expected)


class Clamped(PolyActivation):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.clamp(-0.45, 0.45))


class Coefficients(PolyActivation):
    def coefficients(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        a, b, c = super().coefficients()
        return 2 * a, b, c


class Safe(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.clamp(max=0.4))


class Disguised(Safe):
    __module__ = "torch.nn.modules.linear"


class Called(nn.Sequential):
    def _call_impl(self, *x: torch.Tensor) -> Any:
        return super()._call_impl(x[0].clamp(max=0.4))


def with_activation(activation: nn.Module) -> nn.Module:
    module = convolutional()
    module[1] = activation
    return module


LAYERS = {
    "activation": (lambda: with_activation(Clamped(4)), r"1\.clamp: clamp has no encrypted form"),
    "weight_norm": (
        lambda: nn.Sequential(nn.Flatten(), parametrizations.weight_norm(Safe(36, 5))),
        r"1.*: clamp has no",
    ),
    "spectral_norm": (
        lambda: nn.Sequential(nn.Flatten(), parametrizations.spectral_norm(Safe(36, 5))),
        r"1.*: clamp has no encrypted form",
    ),
    "module of torch": (lambda: nn.Sequential(nn.Flatten(), Disguised(36, 5)), "1: clamp has no encrypted form"),
    "_call_impl": (lambda: Called(*dense()), "clamp: clamp has no encrypted form"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_with_methods_of_their_own_are_followed(name: str) -> None:
    make, message = LAYERS[name]
    refused(make(), f"^{message}")


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        (nn.Linear, "forward"),
        (nn.Conv2d, "forward"),
        (nn.Conv2d, "_conv_forward"),
        (PolyActivation, "forward"),
        (PolyActivation, "coefficients"),
    ],
)
def test_classes_that_are_patched_are_followed(
    kind: type[nn.Module], method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = getattr(kind, method)

    def patch(self: nn.Module, *x: torch.Tensor) -> Any:
        found = before(self, *x)
        return tuple(2 * y for y in found) if isinstance(found, tuple) else 2 * found

    monkeypatch.setattr(kind, method, patch)
    assert_same(convolutional())


def test_a_function_that_is_patched_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = functional.linear
    monkeypatch.setattr(functional, "linear", lambda x, *rest: before(x.clamp(max=0.4), *rest))
    refused(dense(), "^1: clamp has no encrypted form")


class Seen(nn.Module):
    """A dense network behind what a function makes of its input, which tracing does not see."""

    def __init__(self, change: Callable[[nn.Module, torch.Tensor], torch.Tensor], bias: Any = 0.0) -> None:
        super().__init__()
        self.network = dense()
        self.network[1].bias.data += torch.as_tensor(bias)
        self.change = change
        self.generator = torch.Generator()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x if torch.compiler.is_exporting() else self.change(self, x))


def noise_on_bright(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return x + torch.rand(x.shape, generator=module.generator) if x.max() > 0.5 else x


HIDDEN = {
    "bright": (lambda _, x: x.clamp(max=0.5), DARK),
    "bright, on one of zeros": (lambda _, x: x.clamp(max=0.5), DARK[:1] * 0),
    "bright alone": (lambda _, x: torch.where(x.amin() > 0.9, 1 - x, x), DARK),
    "dark": (lambda _, x: x.clamp(min=0.2), 0.5 + DARK),
    "same on the calibration": (lambda _, x: 1 - 2 * x, np.full((4, 1, 6, 6), 1 / 3)),
    "one input": (lambda _, x: 1 - x if len(x) == 1 else x, BRIGHT),
    "noise of its own": (noise_on_bright, DARK),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_what_calibration_does_not_show_is_refused(name: str) -> None:
    change, calibration = HIDDEN[name]
    refused(Seen(change), "(computes something else|gives other scores)", calibration)


def test_one_calibration_input_of_many_shows_it() -> None:
    calibration = np.concatenate([DARK] * 4)
    calibration[3, 0, 2, 2] = 0.777

    def change(_: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return torch.where((x[:, :, 2:3, 2:3] - 0.777).abs() < 1e-6, 1 - x, x)

    refused(Seen(change), "computes something else.* on calibration inputs", calibration)


@pytest.mark.parametrize("bias", [1e5, 1e7, -1e6, [0, 0, 0, 0, -1e5], [0, 0, 0, 0, -1e7]])
def test_a_constant_in_the_scores_hides_nothing(bias: Any) -> None:
    refused(Seen(lambda _, x: 1 - x, bias), "computes something else", BRIGHT)


@contextmanager
def doubled(module: nn.Module) -> Iterator[None]:
    class Double(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return weight * 2

    parametrize.register_parametrization(module, "weight", Double())
    with parametrize.cached():
        yield


def test_cached_parametrisations_are_refused() -> None:
    module = dense()
    with doubled(module[1]):
        refused(module, r"^all modules: torch\.nn\.utils\.parametrize\.cached\(\) is active")
    assert_same(module)


class Deep(nn.Sequential):
    def __init__(self) -> None:
        torch.manual_seed(0)
        parts = [x for _ in range(6) for x in (nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), PolyActivation(4))]
        super().__init__(nn.Conv2d(1, 4, 3), PolyActivation(4), *parts, nn.Flatten(), nn.Linear(64, 5))


class Casting(nn.Module):
    """Takes single precision alone."""

    def __init__(self) -> None:
        super().__init__()
        self.network = dense()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x.float())


class Own(nn.Flatten):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.flatten(x, 1)


def normalised(affine: bool) -> nn.Module:
    norm = nn.BatchNorm2d(1)
    nn.init.constant_(norm.weight, 3)
    norm.affine = affine
    if affine:
        norm.weight = None
    return nn.Sequential(norm, *dense())


HONEST = {
    "deep": Deep,
    "deep, double": lambda: Deep().double(),
    "casts": Casting,
    "constant": lambda: Seen(lambda _, x: x, 1e4),
    "a class never chosen": lambda: Seen(lambda _, x: x, [0, 0, 0, 0, -1e4]),
    "weight_norm": lambda: nn.Sequential(nn.Flatten(), parametrizations.weight_norm(nn.Linear(36, 5))),
    "a class of its own that is followed": lambda: nn.Sequential(Own(), nn.Linear(36, 5)),
    "coefficients of its own": lambda: with_activation(Coefficients(4)),
    "BatchNorm without weight": lambda: normalised(affine=True),
    "BatchNorm with weight": lambda: normalised(affine=False),
}


@pytest.mark.parametrize("name", HONEST)
def test_honest_modules_are_compiled(name: str) -> None:
    assert_same(HONEST[name]())


@pytest.mark.parametrize("calibration", [DARK[:1], DARK[:1] * 0, np.full((3, 1, 6, 6), 0.5)])
def test_calibration_inputs_that_are_all_the_same_refuse_nothing(calibration: Array) -> None:
    module = Deep()
    for part in module:
        if isinstance(part, PolyActivation):
            for x in part.parameters():
                nn.init.normal_(x)
    compiled(module, calibration)


def test_probes_that_overflow_refuse_nothing() -> None:
    wide = RANGE.model_copy(update={"low": -1e30, "high": 1e30, "kind": "values"})
    assert_same(Deep(), wide)


def test_gradients_stay_as_they_are() -> None:
    module = convolutional()
    module(torch.tensor(BRIGHT, dtype=torch.float32)).sum().backward()
    before = {name: (x.grad, x.grad.clone(), x.dtype) for name, x in module.named_parameters()}
    compiled(module)
    for name, x in module.named_parameters():
        grad, values, kind = before[name]
        assert x.grad is grad
        assert x.dtype == grad.dtype == kind
        assert torch.equal(grad, values)
