"""What cannot be compiled: all of it at once, each with the way out that fits."""

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.ao import quantization
from torch.nn import functional

import heinfer
from heinfer.compiler import compile as compiler
from heinfer.errors import CompileError, ShapeError, UnsupportedOperatorError
from heinfer.formats.manifest import Preprocessing
from heinfer.frontend import trace
from heinfer.frontend.ways_out import way_out
from heinfer.nn import PolyActivation

SHAPE = (1, 6, 6)
RANGE = Preprocessing(divisor=255, mean=(0.0,), std=(1.0,), low=0.0, high=1.0)


def network(*between: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), PolyActivation(2), *between, nn.Flatten(), nn.Linear(32, 4)
    )


def with_values(name: str, value: float, eps: float = 1e-5) -> nn.Module:
    module = network()
    module.get_submodule("1").eps = eps
    with torch.no_grad():
        tensor = dict(module.state_dict())[name]
        tensor.view(-1)[1] = value
    return module


def lazy() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return nn.Sequential(nn.LazyConv2d(2, 3), nn.Flatten(), nn.LazyLinear(3))


def quantised_while_training() -> nn.Module:
    module = network().train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module.qconfig = quantization.get_default_qat_qconfig()
        return quantization.prepare_qat(module)


def quantised() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return quantization.quantize_dynamic(network(), {nn.Linear})


def sparse() -> nn.Module:
    module = network()
    module[4].weight = nn.Parameter(module[4].weight.detach().to_sparse())
    return module


def with_script() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return network(torch.jit.script(nn.Identity()))


def complex_weights() -> nn.Module:
    module = network()
    module[4].weight = nn.Parameter(torch.zeros(4, 32, dtype=torch.complex64))
    return module


def half_a_part() -> nn.Module:
    module = network()
    module[4].half()
    return module


UNREADABLE: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "meta": (lambda: network().to("meta"), r"0\.weight and 10 more: on the device meta, so without values.*to_empty"),
    "half": (lambda: network().half(), r"0\.weight and 10 more: of type torch\.float16.*give module\.float\(\)"),
    "bfloat16": (lambda: network().bfloat16(), r"0\.weight.*bfloat16.*give module\.float\(\)"),
    "mixed": (half_a_part, r"4\.weight and 1 more: of type torch\.float16.*give module\.float\(\)"),
    "complex": (complex_weights, r"4\.weight: of type torch\.complex64"),
    "sparse": (sparse, r"4\.weight: stored as torch\.sparse_coo.*to_dense\(\)"),
    "lazy": (lazy, r"0: LazyConv2d has no weights yet.*call the module on one(.|\n)*2: LazyLinear has no weights"),
    "trained with quantisation": (
        quantised_while_training,
        r"(.|\n)*0: Conv2d is trained with simulated quant.*strict",
    ),
    "quantised": (quantised, r"4: Linear is quantised.*as it was before"),
    "script": (with_script, r"3: a TorchScript module, .* put the nn\.Module"),
    "no statistics": (
        lambda: network(nn.BatchNorm2d(2, track_running_stats=False)),
        r"3: batch_norm needs .*track_running_stats=True",
    ),
    "no variance": (lambda: with_values("1.running_var", 0, eps=0), r"1: .* 0 in channel 1: take an eps above 0"),
    "negative variance": (lambda: with_values("1.running_var", -1), r"1: .* in channel 1: take an eps above 0"),
    "endless variance": (
        lambda: with_values("1.running_var", np.inf),
        r"1: running_var holds NaN.*in 1 of 2.*reset_run",
    ),
    "no mean": (lambda: with_values("1.running_mean", np.nan), r"1: running_mean holds NaN.*reset_running_stats"),
    "diverged": (
        lambda: with_values("4.weight", np.nan),
        r"4: weight holds NaN or infinity, in 1 of 128 places: train",
    ),
    "no forward": (type("Empty", (nn.Module,), {}), r"the model's forward cannot be followed"),
    "list": (lambda: nn.ModuleList([nn.ReLU()]), r"the model itself: ModuleList .*make it an nn\.Sequential"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_is_refused_before_planning(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "plan_circuit", None)
    make, message = UNREADABLE[name]
    inputs = np.random.default_rng(0).random((4, *SHAPE))
    with pytest.raises(CompileError, match=f"^{message}"):
        heinfer.compile(make(), inputs, name="small", preprocessing=RANGE)


def test_all_that_is_wrong_is_said_at_once() -> None:
    class Wrong(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = network(nn.ReLU(), nn.BatchNorm2d(2, track_running_stats=False))
            self.layers[0].register_forward_hook(lambda *_: None)
            self.pool = nn.MaxPool2d(2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = functional.dropout(self.layers(self.pool(x)))
            return x.softmax(1) + 1

    with pytest.raises(UnsupportedOperatorError) as caught:
        trace(Wrong().half(), (1, 12, 12))
    named = [line.split(": ")[0] for line in str(caught.value).split("\n")]
    weights = "layers.0.weight and 12 more"
    assert named == [weights, "pool", "layers.3", "layers.4", "dropout", "softmax"]


def test_what_an_unsupported_call_gives_is_no_further_problem() -> None:
    class Unpacked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(3, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y, (_, cell) = self.lstm(x)
            return y + cell

    with pytest.raises(UnsupportedOperatorError, match=r"^lstm: LSTM has no encrypted form; its gates [^\n]*$"):
        trace(Unpacked(), (2, 3))


@pytest.mark.parametrize(
    "module",
    [nn.LSTM(6, 4), nn.GRU(6, 4), nn.LayerNorm(6), nn.GroupNorm(1, 6), nn.LocalResponseNorm(2), nn.Embedding(3, 4),
     nn.TransformerEncoderLayer(6, 2, batch_first=True).self_attn, nn.MaxPool2d(2), nn.Softmax(1)],
    ids=lambda module: type(module).__name__,
)  # fmt: skip
def test_only_activations_are_told_to_be_replaced_by_activations(module: nn.Module) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = module

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.part(x, x, x) if isinstance(self.part, nn.MultiheadAttention) else self.part(x)

    with pytest.raises(UnsupportedOperatorError, match=rf"^part: {type(module).__name__} ") as caught:
        trace(Net(), (6, 6))
    assert "PolyActivation" not in str(caught.value)


def test_activations_of_torch_are_told_what_takes_their_place() -> None:
    activations = nn.modules.activation.__all__
    other = {"MultiheadAttention", "Softmax", "Softmax2d", "Softmin", "LogSoftmax"}
    assert {name for name in activations if "PolyActivation" not in way_out(name)} == other & set(activations)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (functional.dropout, r"dropout: dropout is on at inference too: write training=self\.training"),
        (lambda x: torch.dropout(x, 0.5, True), "dropout: dropout is on at inference too"),
        (lambda x: x.half(), r"to: to rounds to torch\.float16"),
        (lambda x: x.to(torch.bfloat16), r"to: to rounds to torch\.bfloat16"),
        (lambda x: x + torch.rand(1), "rand: rand draws random numbers in evaluation mode"),
        (lambda x: x * 0 + x.cumprod(2), "cumprod: cumprod has no encrypted form; use functions that move, scale"),
    ],
)  # fmt: skip
def test_functions_name_what_fits(function: Callable[[torch.Tensor], torch.Tensor], message: str) -> None:
    class Calling(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return function(x)

    with pytest.raises(UnsupportedOperatorError, match=f"^{message}"):
        trace(Calling(), SHAPE)


def test_a_dropout_of_nothing_is_nothing() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return functional.dropout(self.fc(x), 0)

    assert [node.name for node in trace(Net(), (3,)).nodes] == ["fc"]


@pytest.mark.parametrize("same", [False, True])
def test_what_is_changed_in_place_is_changed_by_every_name(same: bool) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.fc(x)
            z = y.detach() if same else y.clone()
            z += x
            return z + y

    module, x = Net().double(), torch.randn(4, 3, dtype=torch.float64)
    np.testing.assert_allclose(trace(module, (3,))(x.numpy()), module(x).detach().numpy(), atol=1e-12)


def test_shapes_that_do_not_fit_stay_shape_errors() -> None:
    with pytest.raises(ShapeError, match=r"^4: .* \[2, 50\] X \[32, 4\]"):
        trace(network(), (1, 7, 7))
