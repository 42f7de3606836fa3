"""ONNX files as torch modules, which are then what any module is: compiled, compared, made polynomial, tuned."""

from heinfer.frontend.onnx.graph import as_graph
from heinfer.frontend.onnx.module import OnnxModule
from heinfer.frontend.onnx.reference import require_reference

__all__ = ["OnnxModule", "as_graph", "require_reference"]
