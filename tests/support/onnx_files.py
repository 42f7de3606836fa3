"""ONNX files of torch modules, and what onnx itself and onnxruntime compute of them."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]
import torch
from numpy.typing import NDArray
from onnx import AttributeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import nn

Array = NDArray[np.float64]


def exported(module: nn.Module, shape: tuple[int, ...], *, any_batch: bool = True) -> onnx.ModelProto:
    file: Any = io.BytesIO()  # which is taken, whatever its types say
    axes = {"input": {0: "n"}} if any_batch else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(), (torch.randn(1, *shape),), file, dynamo=False, opset_version=17, input_names=["input"],
            output_names=["scores"], dynamic_axes=axes,
        )  # fmt: skip
    return onnx.load_model_from_string(file.getvalue())


def doubled(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same in double precision, for onnx's own evaluation to be exact."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    for x in found.graph.initializer:
        if x.data_type == TensorProto.FLOAT:
            x.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(x).astype(np.float64), x.name))
    for node in found.graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT:
                double = numpy_helper.to_array(attribute.t).astype(np.float64)
                attribute.t.CopyFrom(numpy_helper.from_array(double, attribute.t.name))
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.DOUBLE
    for y in (*found.graph.input, *found.graph.output):
        if y.type.tensor_type.elem_type == TensorProto.FLOAT:
            y.type.tensor_type.elem_type = TensorProto.DOUBLE
    del found.graph.value_info[:]
    return found


def by_onnx(model: onnx.ModelProto, x: Array, output: str) -> Array:
    """A tensor of a model in double precision, of one input after the other."""
    double = doubled(model)
    if output not in [y.name for y in double.graph.output]:
        double.graph.output.append(helper.make_tensor_value_info(output, TensorProto.DOUBLE, None))
    evaluator = ReferenceEvaluator(double)
    [name] = [i.name for i in model.graph.input]
    return np.concatenate([np.asarray(next(iter(evaluator.run([output], {name: row[None]})))) for row in x])


def by_onnxruntime(model: onnx.ModelProto, x: Array, output: str) -> Array:
    """The same in single precision."""
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    if output not in [y.name for y in whole.graph.output]:
        whole.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(whole.SerializeToString(), providers=["CPUExecutionProvider"])
    [name] = [i.name for i in model.graph.input]
    rows: list[Any] = [session.run([output], {name: row[None].astype(np.float32)})[0] for row in x]
    return np.concatenate(rows)


def require_same(found: Array, model: onnx.ModelProto, x: Array, output: str) -> None:
    """1e-9 of the largest score from onnx's own in double precision, 1e-4 from onnxruntime's in single."""
    for compute, allowed in ((by_onnx, 1e-9), (by_onnxruntime, 1e-4)):
        expected = compute(model, x, output)
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= allowed * np.abs(expected).max()
