"""An ONNX graph as a module: a part for each node, so that what is said of a node has its name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from heinfer.errors import CompileError, UnsupportedOperatorError
from heinfer.frontend.onnx.functions import FUNCTIONS, READS_NUMBERS

LEAST_OPSET = 13
_WHOLE = (TensorProto.INT64, TensorProto.INT32, TensorProto.STRING, TensorProto.BOOL)
_DOMAINS = ("", "ai.onnx", "ai.onnx.ml")


class OnnxModule(nn.Module):
    """What a graph computes; its weights are parameters, so it can be fine-tuned.

    Takes what the graph takes, and returns its output, or those that are real numbers: labels follow from the scores,
    and what leads to labels alone is not read.

    Attributes:
        model: what it was read from.
        nodes: of it, that lead to the outputs.
    """

    def __init__(self, source: str | Path | ModelProto) -> None:
        """Read a file or model.

        Raises:
            CompileError: for a file that is none, or older than opset 13, and for unknown operators, all at once.
        """
        super().__init__()
        self.model = _read(source)
        graph = self.model.graph
        self.gives = [x.name for x in graph.output if x.type.tensor_type.elem_type not in _WHOLE]
        self.nodes = _towards(self.gives, graph.node)
        unknown = list(_unknown(self.nodes))
        if unknown:
            raise UnsupportedOperatorError("\n".join(unknown))
        held = {x.name: numpy_helper.to_array(x) for x in graph.initializer}
        self.names = {name: f"weight_{number}" for number, name in enumerate(held) if held[name].dtype.kind == "f"}
        for name, path in self.names.items():
            setattr(self, path, nn.Parameter(torch.tensor(held[name])))
        self.numbers = {name: x for name, x in held.items() if name not in self.names}
        self.takes = [x.name for x in graph.input if x.name not in held]
        self.paths = []
        followed, batch = set(self.takes), _fixed_batch(self.model)
        for number, node in enumerate(self.nodes):
            path = _path(node, number)
            follows = bool(followed & set(node.input))
            followed |= set(node.output) if follows else set()
            self.add_module(path, OnnxNode(node, self.model, batch if follows and node.op_type == "Reshape" else None))
            self.paths.append(path)

    @property
    def input_sizes(self) -> list[int]:
        """Of one input, 0 for a size that the file leaves open."""
        [dims] = [x.type.tensor_type.shape.dim for x in self.model.graph.input if x.name in self.takes]
        return [size.dim_value for size in dims[1:]]

    def forward(self, *inputs: Tensor) -> Any:
        """Weights and what follows from the input are tensors; numbers of the graph are arrays of numpy."""
        known: dict[str, Any] = {name: getattr(self, path) for name, path in self.names.items()}
        known |= self.numbers
        known |= dict(zip(self.takes, inputs, strict=True))
        for node, path in zip(self.nodes, self.paths, strict=True):
            result = getattr(self, path)(*(known[name] if name else None for name in node.input))
            results = result if isinstance(result, list) else [result]
            known |= dict(zip(node.output, results, strict=False))
        found = [known[name] for name in self.gives if isinstance(known.get(name), Tensor)]
        numbers = [x for x in found if x.is_floating_point()]
        return numbers[0] if len(numbers) == 1 else tuple(numbers)


class OnnxNode(nn.Module):
    """What one node computes of its inputs, of which those of the file may be arrays."""

    def __init__(self, node: NodeProto, model: ModelProto, batch: int | None) -> None:
        super().__init__()
        self.kind = node.op_type
        self.function = FUNCTIONS[node.op_type]
        self.attributes = {attribute.name: _value(attribute) for attribute in node.attribute}
        if batch is not None:
            self.attributes["batch"] = batch
        if node.op_type == "Split":
            self.attributes.setdefault("num_outputs", len(node.output))
        self.node = node
        self.opsets = {x.domain: x.version for x in model.opset_import}

    def forward(self, *inputs: Any) -> Any:
        if self.kind == "Shape":
            return np.array(inputs[0].shape, dtype=np.int64)[
                slice(self.attributes.get("start", 0), self.attributes.get("end"))
            ]
        if not any(isinstance(x, Tensor) for x in inputs):
            return self._of_numbers(inputs)
        try:
            return self.function(self._tensors(inputs), self.attributes)
        except UnsupportedOperatorError as error:
            raise UnsupportedOperatorError(f"{self.kind} {error}") from None

    def _of_numbers(self, inputs: Sequence[Any]) -> list[Any]:
        """By onnx itself."""
        given = {name: x for name, x in zip(self.node.input, inputs, strict=True) if name}
        return list(ReferenceEvaluator(self.node, opsets=self.opsets).run(None, given))

    def _tensors(self, inputs: Sequence[Any]) -> list[Any]:
        """Real numbers as tensors, of the type of the others; whole ones say what the function does."""
        kind = next(x.dtype for x in inputs if isinstance(x, Tensor))
        return [
            torch.tensor(x, dtype=kind) if isinstance(x, np.ndarray) and _is_data(self.kind, x) else x for x in inputs
        ]

    def extra_repr(self) -> str:
        return self.kind


def _read(source: Any) -> ModelProto:
    if isinstance(source, str | Path):
        try:
            model = onnx.load(source)
        except Exception as error:  # of files, protobuf and onnx
            raise CompileError(f"{source} cannot be read as ONNX: {error}") from error
    else:
        model = source
    opset = next((x.version for x in model.opset_import if x.domain in ("", "ai.onnx")), LEAST_OPSET)
    if opset < LEAST_OPSET:
        raise CompileError(
            f"the ONNX model is of opset {opset}, and {LEAST_OPSET} is the least: export it anew, or "
            f"onnx.version_converter.convert_version(model, {LEAST_OPSET})"
        )
    return model


def _towards(outputs: Sequence[str], nodes: Sequence[NodeProto]) -> list[NodeProto]:
    """The nodes that lead to some outputs, in order."""
    wanted, found = set(outputs), list[NodeProto]()
    for node in reversed(nodes):
        if wanted & set(node.output):
            found.append(node)
            wanted |= set(node.input)
    return found[::-1]


def _unknown(nodes: Sequence[NodeProto]) -> Iterator[str]:
    for number, node in enumerate(nodes):
        if node.op_type not in FUNCTIONS or node.domain not in _DOMAINS:
            named = f"{node.domain}." if node.domain not in _DOMAINS else ""
            yield (
                f"{_path(node, number)}: ONNX's {named}{node.op_type} has no encrypted form; docs/operators.md lists "
                "those that have one"
            )


def _fixed_batch(model: ModelProto) -> int | None:
    """Inputs that the file takes at once, where it says so."""
    held = {x.name for x in model.graph.initializer}
    shapes = [x.type.tensor_type.shape.dim for x in model.graph.input if x.name not in held]
    sizes = [dims[0].dim_value for dims in shapes if len(dims) and dims[0].HasField("dim_value")]
    return sizes[0] if sizes else None


def _path(node: NodeProto, number: int) -> str:
    """A module's name may hold no dots, and no two are the same."""
    named = re.sub(r"\W+", "_", node.name).strip("_")
    return f"{named or node.op_type}_{number}"


def _is_data(kind: str, x: NDArray[Any]) -> bool:
    return x.dtype.kind == "f" and kind not in READS_NUMBERS


def _value(attribute: AttributeProto) -> Any:
    value = helper.get_attribute_value(attribute)
    if attribute.type == AttributeProto.TENSOR:
        return numpy_helper.to_array(value)
    if attribute.type == AttributeProto.STRING:
        return value.decode()
    return list(value) if attribute.type in (AttributeProto.INTS, AttributeProto.FLOATS) else value
