"""Modules whose forward takes several tensors, or returns several."""

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import heinfer
from heinfer import Preprocessing
from heinfer.compiler.joined_module import as_one
from heinfer.errors import CompileError, ShapeError
from heinfer.layout.parts import parts_of

PLAIN = Preprocessing(divisor=1.0, mean=(0.0,), std=(1.0,), low=-1.0, high=1.0, kind="values")
X = np.random.default_rng(0).uniform(-1, 1, (20, 6))


class Pair(NamedTuple):
    finding: Tensor
    offset: Tensor


class Heads(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.finding, self.offset = nn.Linear(6, 4), nn.Linear(4, 2), nn.Linear(4, 3)
        self.kind = kind

    def forward(self, x: Tensor) -> Any:
        y = self.body(x)
        finding, offset = self.finding(y), self.offset(y)
        if self.kind == "mapping":
            return {"finding": finding, "offset": offset}
        if self.kind == "named":
            return Pair(finding, offset)
        return {"tuple": (finding, offset), "one": torch.cat([finding, offset], 1), "scalar": 3, "none": ()}[self.kind]


class Scan(nn.Module):
    """Takes a picture and a record."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.record, self.last = nn.Conv2d(1, 2, 3), nn.Linear(3, 4), nn.Linear(4 + 8, 3)

    def forward(self, image: Tensor, record: Tensor) -> Tensor:
        return self.last(torch.cat([torch.flatten(self.conv(image), 1), self.record(record)], 1))


def compiled(module: nn.Module, **told: Any) -> heinfer.CompiledModel:
    return heinfer.compile(module, X, name="heads", preprocessing=PLAIN, **told)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("mapping", {"labels": {"finding": ("a", "b")}}),
        ("mapping", {"labels": {"finding": ("a", "b")}, "outputs": {"finding": (2,), "offset": (3,)}}),
        ("named", {"labels": {"finding": ("a", "b")}}),
        ("tuple", {"labels": {"finding": ("a", "b")}, "outputs": ("finding", "offset")}),
        ("one", {"labels": {"finding": ("a", "b")}, "outputs": {"finding": (2,), "offset": (3,)}}),
    ],
)
def test_outputs_are_those_that_the_module_returns(kind, told):
    module = Heads(kind).train()
    model = compiled(module, **told)
    assert module.training
    assert [(part.name, part.shape) for part in model.manifest.output_parts] == [("finding", (2,)), ("offset", (3,))]
    assert [part.kind for part in model.manifest.outputs] == ["classification", "values"]
    expected = Heads("mapping")(torch.tensor(X, dtype=torch.float32))
    for name, values in model.outputs(X).items():
        assert np.allclose(values, expected[name].detach().numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "told", "reason"),
    [
        ("mapping", {"outputs": ("a", "b")}, "returns finding, offset, the outputs are named a, b"),
        ("mapping", {"outputs": {"finding": (3,), "offset": (2,)}}, "have the shapes {'finding': .2,., 'offset'"),
        (
            "tuple",
            {"labels": {"finding": ("a", "b")}},
            "returns 2 tensors, and 0 outputs are named: .*outputs=.'output0",
        ),
        ("tuple", {"outputs": ("a", "b", "c")}, "returns 2 tensors, and 3 outputs are named"),
        ("scalar", {"outputs": ("a",)}, "the model returns a int: return a tensor"),
        ("none", {"outputs": ("a",)}, "the model returns a tuple: return a tensor"),
    ],
)
def test_what_is_said_of_outputs_has_to_be_so(kind, told, reason):
    with pytest.raises((CompileError, ShapeError), match=reason):
        compiled(Heads(kind), **told)


@pytest.mark.parametrize("order", [("image", "record"), ("record", "image"), ("picture", "row")])
def test_a_module_of_several_inputs_is_one_of_their_concatenation(order):
    shapes = {"image": (1, 4, 4), "record": (3,), "picture": (1, 4, 4), "row": (3,)}
    parts = parts_of((name, shapes[name]) for name in order)
    rng = np.random.default_rng(0)
    whole = rng.uniform(-1, 1, (5, 19)).astype(np.float32)
    scan = Scan()
    module, outputs = as_one(scan, parts, whole, None)
    own = {part.name: torch.tensor(part.of(whole)) for part in parts}
    by_place = own.values() if "picture" in own else (own["image"], own["record"])
    assert outputs is None
    assert torch.equal(module(torch.tensor(whole)), scan(*by_place))


def test_a_module_of_several_inputs_is_compiled():
    rng = np.random.default_rng(0)
    given = {"record": rng.uniform(-1, 1, (50, 3)), "image": rng.uniform(-1, 1, (50, 1, 4, 4))}
    model = heinfer.compile(Scan(), given, name="scan", preprocessing=dict.fromkeys(given, PLAIN))
    image, record = (torch.tensor(given[name], dtype=torch.float32) for name in ("image", "record"))
    assert np.allclose(model(given), Scan()(image, record).detach().numpy(), atol=1e-5)


def test_a_module_of_one_tensor_stays_itself():
    linear = nn.Linear(6, 2)
    assert as_one(linear, parts_of([("a", (2,)), ("b", (4,))]), X, None) == (linear, None)
    assert as_one("no module", parts_of([("a", (6,))]), X, None) == ("no module", None)
