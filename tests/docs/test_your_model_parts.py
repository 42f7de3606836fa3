"""What docs/your-model.md says of vectors, several inputs and outputs, done: compiled, served and asked."""

import ast
from typing import Any

import numpy as np
import torch
from pages import ROOT, blocks
from server_process import server_process
from torch import nn

import heinfer
from heinfer.compiler.model import CompiledModel
from heinfer_client import Client

RECORDS, BOTH = blocks((ROOT / "docs" / "your-model.md").read_text(), "py")


class Stepwise:
    """A page's block, in two parts: what makes a model, and what asks a client."""

    def __init__(self, source: str, names: dict[str, Any]) -> None:
        statements = ast.parse(source).body
        asks = [
            any(isinstance(n, ast.Name) and n.id in {"client", "prediction"} for n in ast.walk(s)) for s in statements
        ]
        self._makes = [s for s, is_asking in zip(statements, asks, strict=True) if not is_asking]
        self._asks = [s for s, is_asking in zip(statements, asks, strict=True) if is_asking]
        self.names = names | {"heinfer": heinfer}

    def _last(self, statements: list[ast.stmt]) -> Any:
        *before, last = statements
        assert isinstance(last, ast.Expr)
        exec(compile(ast.Module(before, []), "page", "exec"), self.names)
        return eval(compile(ast.Expression(last.value), "page", "eval"), self.names)

    def made(self) -> CompiledModel:
        model: CompiledModel = self._last(self._makes)
        return model

    def asked(self, client: Client) -> Any:
        self.names["client"] = client
        return self._last(self._asks)


def test_the_blocks_do_what_they_say(tmp_path):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    vector = rng.uniform(-1, 1, (50, 3))
    records = Stepwise(RECORDS, {"network": nn.Linear(3, 2), "x": vector})
    first = records.made()
    pixels = heinfer.Preprocessing(divisor=255, mean=(0.0,), std=(1.0,), low=0, high=1)
    names = {"images": rng.random((50, 1, 8, 8)), "records": vector, "pixels": pixels, "img": rng.random((8, 8))}
    both = Stepwise(BOTH, names | {"network": nn.Linear(67, 6), "record": records.names["record"]})
    second = both.made()
    with server_process(tmp_path, [first.bundle, second.bundle]) as server:
        with Client(server.url, model="risk", progress=False) as client:
            assert records.asked(client).label in {"low", "high"}
        with Client(server.url, model="both", progress=False) as client:
            label, _, shape = both.asked(client)
    assert label in {"none", "nodule"}
    assert shape == (1, 2, 2)
