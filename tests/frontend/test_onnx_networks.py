"""ONNX files of whole networks, as torch, Keras and scikit-learn export them, against onnx itself and onnxruntime."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx_files import exported, require_same
from skl2onnx import to_onnx
from sklearn.datasets import load_breast_cancer
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.svm import LinearSVC
from torch import nn
from torch.export import Dim

from benchmarks.foreign import networks
from heinfer.convert import polynomialize
from heinfer.errors import UnsupportedOperatorError
from heinfer.frontend import trace
from heinfer.frontend.onnx import OnnxModule

FILES = Path(__file__).parent / "files"
RNG = np.random.default_rng(0)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "lenet5": (networks.lenet5, (1, 28, 28)),
    "resnet8": (networks.ResNet8, (3, 32, 32)),
    "ecg": (networks.ecg, (1, 187)),
    "tabular": (networks.tabular, (30,)),
}


def with_statistics(module: nn.Module, data: torch.Tensor) -> nn.Module:
    """In evaluation mode, after a look at data in training mode."""
    torch.manual_seed(0)
    with torch.no_grad():
        module.train()(data)
    return module.eval()


def holds(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    data = torch.randn(16, *shape)
    polynomial = polynomialize(with_statistics(make(), data), data).module
    model = exported(polynomial, shape)
    x = RNG.normal(size=(3, *shape))
    require_same(trace(OnnxModule(model), shape)(x), model, x, "scores")


@pytest.mark.parametrize("name", NETWORKS)
def test_a_polynomial_network_is_what_its_file_says(name: str) -> None:
    holds(*NETWORKS[name])


@pytest.mark.slow
def test_a_vgg_is_what_its_file_says() -> None:
    holds(networks.vgg, (3, 32, 32))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_file_becomes_the_polynomials_that_its_module_does(name: str) -> None:
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    data = torch.randn(16, *shape)
    module = with_statistics(make(), data)
    of_file, report = polynomialize(exported(nn.Sequential(module, nn.Softmax(1)), shape), data)
    expected, said = polynomialize(module, data)
    assert [a.activation.lower() for a in report.activations] == [a.activation.lower() for a in said.activations]
    assert report.pools == said.pools
    with torch.no_grad():
        scores = expected(data)
        assert (of_file(data) - scores).abs().max() <= 1e-4 * scores.abs().max()
    x = RNG.normal(size=(2, *shape))
    double = of_file.double()(torch.tensor(x)).detach().numpy()
    assert np.abs(trace(of_file, shape)(x) - double).max() <= 1e-9 * np.abs(double).max()


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # torch's own, of torch's export
def test_an_exported_program_becomes_the_polynomials_that_its_module_does() -> None:
    torch.manual_seed(0)
    data = torch.randn(16, 1, 28, 28)
    module = networks.lenet5().eval()
    program = torch.export.export(module, (data,), dynamic_shapes=({0: Dim("n")},))
    (of_program, report), (expected, said) = polynomialize(program, data), polynomialize(module, data)
    assert (len(report.activations), report.pools) == (len(said.activations), said.pools) == (4, 2)
    assert torch.equal(of_program(data), expected(data))
    x = RNG.normal(size=(2, 1, 28, 28))
    double = of_program.double()(torch.tensor(x)).detach().numpy()
    assert np.abs(trace(of_program, (1, 28, 28))(x) - double).max() <= 1e-9 * np.abs(double).max()


def test_a_padded_max_pool_of_a_file_becomes_the_average_of_what_is_there() -> None:
    layers = nn.Sequential(nn.MaxPool2d(3, 2, padding=1), nn.Conv2d(2, 3, 1), nn.Hardtanh(-0.5, 2))
    data = torch.randn(16, 2, 7, 7)
    (of_file, report), (expected, _) = polynomialize(exported(layers, (2, 7, 7)), data), polynomialize(layers, data)
    assert [a.activation for a in report.activations] == ["Hardtanh"]
    assert (of_file(data) - expected(data)).abs().max() < 1e-5


# Keras


def test_a_file_of_keras_is_what_it_says() -> None:
    """Channels last, with transposes around its convolutions, a batch in a computed shape, and a softmax at the end."""
    file = FILES / "keras.onnx"
    model, shape = onnx.load(file), (12, 12, 2)
    with pytest.raises(UnsupportedOperatorError, match=r"functional_1_scores_1_\w+: softmax has no .*leave it off"):
        trace(OnnxModule(file), shape)
    x = RNG.normal(size=(3, *shape))
    without = polynomialize(file, torch.tensor(x, dtype=torch.float32)).module
    require_same(trace(without, shape)(x), model, x, "functional_1/dense_1/MatMul:0")


# scikit-learn


def pipelines() -> dict[str, Any]:
    return {
        "standardised": make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)),
        "scaled": make_pipeline(MinMaxScaler(), LogisticRegression(max_iter=500)),
        "components": make_pipeline(StandardScaler(), PCA(5), LogisticRegression(max_iter=500)),
        "support vectors": make_pipeline(StandardScaler(), LinearSVC()),
        "regression": make_pipeline(StandardScaler(), Ridge()),
    }


def file_of(pipeline: Any, x: Any) -> onnx.ModelProto:
    last = pipeline[-1]
    told = {"raw_scores": True} if isinstance(last, LinearSVC) else {"raw_scores": True, "zipmap": False}
    options = {id(last): told} if hasattr(last, "classes_") else {}
    return to_onnx(pipeline, x[:1].astype(np.float32), options=options)


@pytest.mark.parametrize("name", pipelines())
def test_a_pipeline_of_scikit_learn_gives_its_scores(name: str) -> None:
    x, y = load_breast_cancer(return_X_y=True)
    pipeline = pipelines()[name].fit(x, y)
    found = trace(OnnxModule(file_of(pipeline, x)), (30,))(x[:20])
    of_pipeline = pipeline.decision_function if hasattr(pipeline, "decision_function") else pipeline.predict
    expected = of_pipeline(x[:20])
    assert np.abs(found[:, -1] - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    ("kind", "activation"), [(MLPClassifier, "relu"), (MLPClassifier, "tanh"), (MLPRegressor, "relu")]
)
def test_a_perceptron_of_scikit_learn_becomes_one_of_polynomials(kind: Any, activation: str) -> None:
    x, y = load_breast_cancer(return_X_y=True)
    pipeline = make_pipeline(
        StandardScaler(), kind(hidden_layer_sizes=(16,), activation=activation, random_state=0, max_iter=60)
    ).fit(x, y)
    options = {id(pipeline[-1]): {"zipmap": False}} if kind is MLPClassifier else {}
    model = to_onnx(pipeline, x[:1].astype(np.float32), options=options)
    polynomial, report = polynomialize(model, torch.tensor(x, dtype=torch.float32), degree=7)
    assert {a.degree for a in report.activations} == {7}  # a binary classifier's sigmoid is one too, before 1 - p
    scores = trace(polynomial, (30,))(x)
    assert ((scores[:, -1] > 0.5) == (pipeline.predict(x) > 0.5)).mean() > 0.9


def test_a_picture_of_a_file_keeps_the_values_that_its_sigmoid_gives() -> None:
    torch.manual_seed(0)
    module, data = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Sigmoid()), torch.randn(40, 1, 6, 6)
    of_file, report = polynomialize(exported(module, (1, 6, 6)), data, degree=7)
    assert not report.left_off
    assert (of_file(data) - module(data)).abs().max() < 0.05
