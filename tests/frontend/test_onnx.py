"""ONNX files: scores equal onnx's own, what has no encrypted form is named by node."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnx_files import by_onnx, exported
from skl2onnx import to_onnx
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional

import heinfer
from heinfer.errors import CompileError, UnsupportedOperatorError
from heinfer.formats.manifest import Preprocessing
from heinfer.frontend import trace
from heinfer.frontend.onnx import OnnxModule, require_reference
from heinfer.nn import PolyActivation


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)
        self.act, self.fc = PolyActivation(4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.act(self.b(self.a(x)))
        y = y + self.c(y)
        y = torch.cat([y[:, :2], y[:, 2:] * 0.5], 1)
        y = functional.pad(functional.interpolate(y, scale_factor=2), (1, 1, 0, 2))
        return self.fc(functional.avg_pool2d(y, 2).mean((2, 3)))


class Shuffled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.up = nn.Conv2d(4, 4, 1, groups=2), nn.ConvTranspose2d(4, 2, 2, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, c, h, w = x.shape
        y = self.conv(x).view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.up(y).flatten(1)


def dense() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 5), PolyActivation(5), nn.Linear(5, 2))


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "residual": (Residual, (3, 6, 6)),
    "shuffled": (Shuffled, (4, 4, 4)),
    "dense": (dense, (3, 2, 2)),
}


@pytest.mark.parametrize("any_batch", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_scores_are_those_of_onnx(name: str, any_batch: bool) -> None:
    make, shape = MODELS[name]
    torch.manual_seed(0)
    model = exported(make(), shape, any_batch=any_batch)
    x = np.random.default_rng(0).normal(size=(3, *shape))
    found = trace(OnnxModule(model).eval(), shape)(x)
    expected = by_onnx(model, x, "scores")
    assert np.abs(found - expected).max() <= 1e-9 * np.abs(expected).max()


def test_what_has_no_encrypted_form_is_named_by_its_node() -> None:
    model = exported(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()), (1, 6, 6))
    with pytest.raises(
        UnsupportedOperatorError, match=r"^\w*Relu\w*: relu has no .*\n\w*MaxPool\w*: max_pool2d has no"
    ):
        trace(OnnxModule(model).eval(), (1, 6, 6))


def graph_of(*nodes: Any, opset: int = 17, domain: str = "") -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])
    return helper.make_model(
        helper.make_graph(list(nodes), "g", [x], [y]), opset_imports=[helper.make_opsetid(domain, opset)]
    )


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: graph_of(helper.make_node("Sqrt", ["x"], ["y"]), opset=9), "of opset 9, and 13 is the least"),
        (
            lambda: graph_of(helper.make_node("Sin", ["x"], ["z"]), helper.make_node("Cos", ["z"], ["y"], name="c")),
            r"^Sin_0: ONNX's Sin has no encrypted form.*\nc_1: ONNX's Cos has",
        ),
        (lambda: graph_of(helper.make_node("Add", ["x"], ["y"], domain="mine")), r"Add_0: ONNX's mine\.Add has no"),
        (lambda: "there/is/none.onnx", r"there/is/none\.onnx cannot be read as ONNX"),
    ],
)
def test_files_that_cannot_be_read_are_refused(model: Callable[[], Any], message: str) -> None:
    with pytest.raises(CompileError, match=message):
        OnnxModule(model())


def test_a_file_that_computes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    module = OnnxModule(exported(dense(), (3, 2, 2))).eval()
    inputs = np.random.default_rng(0).normal(size=(4, 3, 2, 2))
    require_reference(module, inputs)
    with torch.no_grad():
        module.weight_0 *= 1.01
    with pytest.raises(CompileError, match="computes something else"):
        require_reference(module, inputs)


def test_a_classifier_of_scikit_learn_gives_its_scores(tmp_path: Any) -> None:
    x, y = load_breast_cancer(return_X_y=True)
    mean, std = tuple(x.mean(0)), tuple(x.std(0))
    z = StandardScaler().fit_transform(x)
    classifier = LogisticRegression(max_iter=500).fit(z, y)
    options = {id(classifier): {"raw_scores": True, "zipmap": False}}
    file = tmp_path / "risk.onnx"
    file.write_bytes(to_onnx(classifier, z[:1].astype(np.float32), options=options).SerializeToString())
    preprocessing = Preprocessing(divisor=1, mean=mean, std=std, low=z.min(), high=z.max(), kind="values")
    model = heinfer.compile(file, z[:200], name="risk", preprocessing=preprocessing)
    decided = classifier.decision_function(z[:20])
    assert np.abs(model(z[:20])[:, 1] - decided).max() < 1e-5 * np.abs(decided).max()
