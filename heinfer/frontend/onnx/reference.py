"""The module of an ONNX file against onnx's own evaluation of that file."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from heinfer.errors import CompileError
from heinfer.frontend.onnx.module import OnnxModule

_INPUTS = 4
_ALLOWED = 1e-4
"""Share of the largest score that rounding in single precision may change."""


def require_reference(module: OnnxModule, inputs: NDArray[np.float64]) -> None:
    """Refuse a module that does not compute what its file says, on a few inputs, one at a time.

    Raises:
        CompileError: says by how much they differ.
    """
    evaluator = ReferenceEvaluator(module.model)
    [name] = module.takes
    for row in inputs[:_INPUTS]:
        one = row[None].astype(np.float32)
        kind = next((x.dtype for x in module.parameters()), torch.float32)
        with torch.no_grad():
            found = module(torch.tensor(one, dtype=kind))
        expected = [x for x in evaluator.run(module.gives, {name: one}) if _is_number(x)]
        results = [found] if isinstance(found, torch.Tensor) else list(found)
        for result, value in zip(results, expected, strict=True):
            largest = float(np.abs(value).max(initial=0))
            difference = float(np.abs(result.numpy() - value).max(initial=0))
            if not difference <= _ALLOWED * largest:
                raise CompileError(
                    f"the ONNX model computes something else than its operators are taken for: scores differ by "
                    f"{difference / largest if largest else np.inf:.1e} of the largest from onnx's own: export it with "
                    "another opset, or give the model that it was made of"
                )


def _is_number(x: object) -> bool:
    return isinstance(x, np.ndarray) and x.dtype.kind == "f"
