"""ONNX files as torch modules, which are then what any module is: compiled, compared, made polynomial, tuned."""

from heinfer.frontend.onnx.module import OnnxModule

__all__ = ["OnnxModule"]
