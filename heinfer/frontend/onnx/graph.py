"""An ONNX graph as one of torch.fx with torch's activations, for what replaces those."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto
from torch import fx, nn

from heinfer.frontend.onnx.functions import FUNCTIONS
from heinfer.frontend.onnx.module import OnnxModule, OnnxNode


def as_graph(module: OnnxModule) -> fx.GraphModule:
    """The same with its activations as torch's modules; it takes any batch."""
    graph = fx.Graph()
    known: dict[str, Any] = dict(module.numbers)
    known |= {name: graph.placeholder(f"input_{number}") for number, name in enumerate(module.takes)}
    known |= {name: graph.get_attr(path) for name, path in module.names.items()}
    parts: dict[str, Any] = {path: copy.deepcopy(getattr(module, path)) for path in module.names.values()}
    for node, path in zip(module.nodes, module.paths, strict=True):
        inputs = [known[name] if name else None for name in node.input]
        if not any(isinstance(x, fx.Node) for x in inputs):
            known |= dict(zip(node.output, getattr(module, path)(*inputs), strict=False))
            continue
        parts[path] = _part(node, copy.deepcopy(getattr(module, path)), inputs)
        made = graph.call_module(path, tuple(x for x in inputs if isinstance(x, fx.Node)))
        for number, name in enumerate(node.output):
            known[name] = made if len(node.output) == 1 else graph.call_function(operator.getitem, (made, number))
    found = [known[name] for name in module.gives]
    graph.output(found[0] if len(found) == 1 else tuple(found))
    whole = fx.GraphModule(parts, graph)
    whole.graph.eliminate_dead_code()
    whole.recompile()
    return whole


class Given(nn.Module):
    """A node whose inputs of the file are held."""

    def __init__(self, node: OnnxNode, inputs: Sequence[Any], outputs: int) -> None:
        super().__init__()
        self.node, self.outputs = node, outputs
        self.inputs = list(inputs)
        self.open = [number for number, x in enumerate(inputs) if isinstance(x, fx.Node)]
        for number in self.open:
            self.inputs[number] = None

    def forward(self, *inputs: Any) -> Any:
        """Of the inputs that follow from those of the graph, in their order."""
        every = list(self.inputs)
        for number, x in zip(self.open, inputs, strict=True):
            every[number] = x
        found = self.node(*every)
        results = found if isinstance(found, list) else [found]
        return results[0] if self.outputs == 1 else results

    def averaged(self) -> nn.Module | None:
        """The average pool of the same windows, of a max pool; None of anything else."""
        if self.node.kind != "MaxPool" or set(self.node.attributes.get("dilations", [1])) != {1}:
            return None
        made = copy.deepcopy(self)
        made.node.kind, made.node.function = "AveragePool", FUNCTIONS["AveragePool"]
        return made


def _part(node: NodeProto, made: OnnxNode, inputs: Sequence[Any]) -> nn.Module:
    if node.op_type == "LinearClassifier":
        made.attributes["post_transform"] = "NONE"
    activation = None
    if inputs and isinstance(inputs[0], fx.Node):
        build = _ACTIVATIONS.get(node.op_type)
        activation = build(made.attributes) if build else _clip(inputs) if node.op_type == "Clip" else None
    return activation or Given(made, inputs, len(node.output))


def _clip(inputs: Sequence[Any]) -> nn.Module | None:
    low, high = [*inputs[1:], None, None][:2]
    if isinstance(low, fx.Node) or isinstance(high, fx.Node):
        return None
    least, most = (end if x is None else float(np.asarray(x).item()) for x, end in ((low, -np.inf), (high, np.inf)))
    return nn.Hardtanh(least, most)


_ACTIVATIONS: dict[str, Callable[[Mapping[str, Any]], nn.Module]] = {
    "Relu": lambda _: nn.ReLU(),
    "LeakyRelu": lambda a: nn.LeakyReLU(a.get("alpha", 0.01)),
    "Elu": lambda a: nn.ELU(a.get("alpha", 1.0)),
    "Selu": lambda _: nn.SELU(),
    "Gelu": lambda a: nn.GELU(a.get("approximate", "none")),
    "HardSwish": lambda _: nn.Hardswish(),
    "Mish": lambda _: nn.Mish(),
    "Sigmoid": lambda _: nn.Sigmoid(),
    "Softmax": lambda a: nn.Softmax(a.get("axis", -1)),
    "LogSoftmax": lambda a: nn.LogSoftmax(a.get("axis", -1)),
    "Tanh": lambda _: nn.Tanh(),
    "Softplus": lambda _: nn.Softplus(),
    "Softsign": lambda _: nn.Softsign(),
}
