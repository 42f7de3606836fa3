"""The compiled network is the module: what tracing does not see is refused, and the module stays as it was."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune

import heinfer
from heinfer.compiler import compile as compiler
from heinfer.compiler.model import CompiledModel
from heinfer.errors import CompileError
from heinfer.formats.manifest import Preprocessing
from heinfer.network.ir import Network
from heinfer.nn import BlockCirculantConv2d, PolyActivation

RANGE = Preprocessing(divisor=255, mean=(0.0,), std=(1.0,), low=0.0, high=1.0)
INPUTS = np.random.default_rng(0).random((64, 1, 6, 6))


class Planning(Exception):  # noqa: N818
    """Planning begins, which takes long, with this network."""


@pytest.fixture
def no_planning(monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(network: Network, *_: object, **__: object) -> None:
        raise Planning(network)

    monkeypatch.setattr(compiler, "balance", begin)  # which comes before, and scales by powers of two


def small(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), PolyActivation(2), nn.Dropout(), nn.Flatten(), nn.Linear(32, 4)
    )
    nn.init.uniform_(network[1].running_var, 0.5, 2)
    return network


def compiled(module: nn.Module) -> CompiledModel:
    return heinfer.compile(module, INPUTS, name="small", preprocessing=RANGE)


def scores(module: nn.Module) -> np.ndarray:
    """What the network computes that is planned."""
    with pytest.raises(Planning) as planned:
        compiled(module)
    return planned.value.args[0](INPUTS)


def assert_same(module: nn.Module, allowed: float = 1e-5) -> None:
    found = scores(module)
    module.eval()
    kind = next(module.parameters()).dtype
    with torch.no_grad():
        expected = module(torch.tensor(INPUTS, dtype=kind)).double().numpy()
    assert np.abs(found - expected).max() < allowed


REPARAMETRISED = {
    "weight_norm": lambda m: nn.utils.weight_norm(m[0]),
    "spectral_norm": lambda m: nn.utils.spectral_norm(m[0]),
    "pruned": lambda m: prune.l1_unstructured(m[0], "weight", 0.5),
    "pruned twice": lambda m: prune.random_unstructured(prune.l1_unstructured(m[0], "weight", 0.2), "weight", 0.5),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", REPARAMETRISED)
def test_weights_that_hooks_compute_are_those_that_are_compiled(name: str, no_planning: None) -> None:
    trained, module = small(1), small(2)
    for network in (trained, module):
        REPARAMETRISED[name](network)
    module.load_state_dict(trained.state_dict())  # its weight is what it was before, until it is called
    assert_same(module)


@pytest.mark.parametrize("name", ["weight_norm", "spectral_norm", "orthogonal"])
def test_parametrisations_are_read_as_they_act(name: str, no_planning: None) -> None:
    trained, module = small(1), small(2)
    for network in (trained, module):
        getattr(parametrizations, name)(network[0])
    module.load_state_dict(trained.state_dict())
    assert_same(module)


def doubled(*args: Any) -> torch.Tensor:
    return args[-1] * 2


HOOKED = {
    "forward": lambda m: m[2].register_forward_hook(doubled),
    "before": lambda m: m[4].register_forward_pre_hook(lambda _, x: (x[0] * 2,)),
    "with words": lambda m: m[5].register_forward_hook(lambda _, x, options, y: y * 2, with_kwargs=True),
    "root": lambda m: m.register_forward_hook(doubled),
    "global": lambda _: nn.modules.module.register_module_forward_hook(doubled),
}


@pytest.mark.parametrize("name", HOOKED)
def test_hooks_are_followed(name: str, no_planning: None) -> None:
    module = small()
    handle = HOOKED[name](module)
    try:
        assert_same(module, 1e-3)
    finally:
        handle.remove()
    assert np.abs(scores(module) - scores(small())).max() < 1e-12


@pytest.mark.parametrize("path", ["2", ""])
def test_patched_forwards_are_followed(path: str, no_planning: None) -> None:
    module = small()
    part = module.get_submodule(path)
    before = part.forward
    part.forward = lambda x: before(x) * 2
    assert_same(module)


class Called(nn.Sequential):
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().__call__(x)


class Louder(PolyActivation):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


class Changing(nn.Module):
    """A network and what a function makes of its scores."""

    def __init__(self, change: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.network = small()
        self.change = change
        self.calls = 0
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.seen += 1
        return self.change(self, self.network(x))


def with_louder_activation() -> nn.Module:
    module = small()
    module[2] = Louder(2)
    return module


def with_weight_of_its_own() -> nn.Module:
    module = small()

    class Stale(nn.Linear):
        """Read as a linear layer by torch.fx, as it says that it is one of torch's."""

        __module__ = "torch.nn.modules.linear"

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return functional.linear(x, self.weight * 1.001, self.bias)

    module[5] = Stale(32, 4)
    return module


def overflowing() -> nn.Module:
    module = small()
    nn.init.constant_(module[5].weight, 3e38)
    return module


def constant_at_random(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return x if random.random() < 2 else x + x


DIFFERENT = {
    "overflow": (overflowing, "5 gives NaN or infinity on calibration inputs"),
    "by the number of calls": (
        lambda: Changing(lambda m, x: x if m.calls < 4 else x + x),
        "the model gives other scores for the same inputs",
    ),
    "while it is traced": (
        lambda: Changing(lambda _, x: x if torch.compiler.is_exporting() else x + x),
        "the model itself computes something else",
    ),
    "random": (
        lambda: Changing(lambda _, x: x if np.random.rand() < 0.5 else x + x),  # noqa: NPY002
        "the model(?:'s forward draws random numbers| gives other)",
    ),
    "drawn and not used": (lambda: Changing(constant_at_random), "the model's forward draws random numbers"),
    "more scores": (
        lambda: Changing(lambda _, x: x if torch.compiler.is_exporting() else x[:, :3]),
        r"the model returns scores of shape \(1, 3\)",
    ),
}


OWN = {
    "__call__ of its own": lambda: Called(*small()),
    "forward of a subclass": with_louder_activation,
    "weight of its own": with_weight_of_its_own,
}


@pytest.mark.parametrize("name", OWN)
def test_a_module_that_computes_in_a_way_of_its_own_is_followed(name: str, no_planning: None) -> None:
    assert_same(OWN[name]())


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_module_that_computes_something_else_is_refused(name: str, no_planning: None) -> None:
    make, message = DIFFERENT[name]
    with pytest.raises(CompileError, match=f"^{message}"):
        compiled(make())


def test_a_part_that_stays_in_training_mode_is_refused(no_planning: None) -> None:
    class Always(nn.Dropout):
        def train(self, mode: bool = True) -> nn.Module:  # does not pass it on
            del mode
            return super().train(True)

    module = small()
    module[3] = Always()
    with pytest.raises(CompileError, match=r"^3: stays in training mode"):
        compiled(module)


def test_float64_is_held_to_float64(no_planning: None) -> None:
    module = Changing(lambda _, x: x if torch.compiler.is_exporting() else x * (1 + 1e-8)).double()
    with pytest.raises(CompileError, match=r"^the model itself computes something else"):
        compiled(module)


@pytest.mark.parametrize("double", [False, True])
def test_block_circulant_layers_are_what_they_compute(double: bool, no_planning: None) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(BlockCirculantConv2d(1, 4, 3, 4), PolyActivation(4), nn.Flatten(), nn.Linear(64, 3))
    assert_same(module.double() if double else module, 1e-10 if double else 1e-5)


WRAPPED = {
    "compiled": torch.compile,
    "compiled in place": lambda m: (m.compile(), m)[1],
    "parallel": nn.DataParallel,
    "compiled, parallel, inside": lambda m: nn.Sequential(nn.DataParallel(torch.compile(m))),
    "a part compiled in place": lambda m: (m[0].compile(), nn.Sequential(m))[1],
}


@pytest.mark.parametrize("name", WRAPPED)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_wrappers_are_looked_into(name: str, no_planning: None) -> None:
    assert np.array_equal(scores(WRAPPED[name](small())), scores(small()))


NOTHING = {
    "dropout": lambda m, x: functional.dropout(x, 0.5, m.training),
    "dropout by name": lambda m, x: functional.dropout(x, training=m.training),
    "contiguous copies": lambda _, x: x.contiguous().clone().detach(),
    "casts": lambda _, x: x.float().to(torch.float32).to(x.device).to("cpu", non_blocking=True).type_as(x).to(x.dtype),
    "sum of one": lambda _, x: sum([x]),
}


@pytest.mark.parametrize("name", NOTHING)
def test_what_does_nothing_is_compiled(name: str, no_planning: None) -> None:
    assert np.abs(scores(Changing(NOTHING[name])) - scores(small())).max() < 1e-12


def test_a_sum_of_a_list_is_a_sum(no_planning: None) -> None:
    assert_same(Changing(lambda _, x: sum([x, x, x])))


def state(module: nn.Module) -> dict[str, Any]:
    """All that can be told of a module."""
    parts = dict(module.named_modules())
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {
        "training": {path: part.training for path, part in parts.items()},
        "attributes": {path: list(vars(part)) for path, part in parts.items()},
        "hooks": {path: (*part._forward_hooks, *part._forward_pre_hooks) for path, part in parts.items()},
        "tensors": {name: (id(x), x.data_ptr(), x.requires_grad, x.grad) for name, x in tensors.items()},
        "values": {name: x.tolist() for name, x in tensors.items()},
        "random": (torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())),  # noqa: NPY002
    }


def noisy(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    module.last = x
    module.network[0].weight.data.mul_(1.5)
    random.random()
    return x.new_zeros(()) + torch.rand(1) if module.calls > 1 else x


@pytest.mark.parametrize("fails", [False, True])
def test_the_module_stays_as_it_is(fails: bool) -> None:
    module = Changing(noisy if fails else lambda _, x: x)
    module.train()
    module.network[1].eval()
    module.network[0].weight.requires_grad_(False)
    module(torch.tensor(INPUTS, dtype=torch.float32)).sum().backward()
    before, calls = state(module), module.calls
    if fails:
        with pytest.raises(CompileError):
            compiled(module)
    else:
        compiled(module)
    assert state(module) == before
    assert module.calls == calls
