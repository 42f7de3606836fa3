"""Layers that mix elements: convolutions, dense layers, pools, means and sums, interpolation; and normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heinfer.errors import UnsupportedOperatorError
from heinfer.frontend.calls import Rule
from heinfer.frontend.elementwise import multiply
from heinfer.frontend.recorder import Recorder
from heinfer.frontend.values import Value, expanded, moved, plus_constant, times_constant
from heinfer.network.linear_map import LinearMap
from heinfer.network.operators import Affine, Convolution, Dense, SparseConvolution
from heinfer.network.pairs import Vector
from heinfer.network.windows import convolution_map, transposed_convolution_map

_NOT_CONSTANT = (
    "has weights that depend on the input of the network: keep them as parameters, or multiply elements, as in x * y"
)

# Convolutions


def convolution(  # noqa: PLR0913, PLR0917 - torch's arguments
    recorder: Recorder,
    x: Value,
    weight: Any,
    bias: Any,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    transposed: bool = False,
    output_padding: Any = 0,
) -> Value:
    """A convolution in any number of dimensions; also torch's general one, which may be transposed."""
    if transposed:
        return transposed_convolution(recorder, x, weight, bias, stride, padding, output_padding, groups, dilation)
    weights = _array(weight)
    offset = _bias(bias, weights.shape[0])
    position, shape = recorder.placed(x)
    kernel = weights.shape[2:]
    steps, apart = each(stride, len(kernel)), each(dilation, len(kernel))
    pads = _pads(padding, kernel, apart)
    if len(shape) != len(kernel) + 1 or shape[0] != weights.shape[1] * groups:
        raise UnsupportedOperatorError(f"takes {weights.shape[1] * groups} channels, not an input of shape {shape}")
    if len(kernel) == 2 and all(before == after for before, after in pads):
        y, x_ = (before for before, _ in pads)
        operator = Convolution(weights, offset, (steps[0], steps[1]), (y, x_), (apart[0], apart[1]), groups)
        return recorder.add(operator, [position])
    linear = convolution_map(shape, weights, offset, steps, pads, apart, groups)
    return recorder.add(Affine(linear), [position])


def transposed_convolution(  # noqa: PLR0913, PLR0917 - torch's arguments, in its order
    recorder: Recorder,
    x: Value,
    weight: Any,
    bias: Any,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Value:
    """A transposed convolution in any number of dimensions."""
    weights = _array(weight)
    position, shape = recorder.placed(x)
    along = weights.ndim - 2
    steps, pads, more, apart = (each(v, along) for v in (stride, padding, output_padding, dilation))
    offset = _bias(bias, weights.shape[1] * groups)
    if any(m >= s for m, s in zip(more, steps, strict=True)):  # outputs that no input reaches by steps: cut from all
        whole = transposed_convolution(recorder, x, weight, None, steps, 0, 0, groups, apart)
        cut = [n for p, m in zip(reversed(pads), reversed(more), strict=True) for n in (-p, m - p)]
        inside = moved(lambda v: torch.nn.functional.pad(v, cut), [whole])
        return plus_constant(inside, torch.tensor(offset).reshape(-1, *(1,) * along))
    linear = transposed_convolution_map(shape, weights, offset, steps, pads, more, apart, groups)
    return recorder.add(Affine(linear), [position])


def sparse_convolution(
    recorder: Recorder,
    x: Value,
    weight: Tensor,
    outputs: Tensor,
    inputs: Tensor,
    channels: int,
    stride: Any,
    padding: Any,
) -> Value:
    """heinfer.nn's convolution in which only some output channels read some input channels."""
    position, shape = recorder.placed(x)
    steps, pads = each(stride, 2), each(padding, 2)
    operator = SparseConvolution(
        shape[0],
        np.array(outputs.numpy()),
        np.array(inputs.numpy()),
        _array(weight),
        np.zeros(channels),
        (steps[0], steps[1]),
        (pads[0], pads[1]),
    )
    return recorder.add(operator, [position])


# Matrices


def dense(recorder: Recorder, x: Any, weight: Any, bias: Any = None) -> Value:
    """A matrix (outputs, inputs) of the last axis."""
    weights = _array(weight)
    if not isinstance(x, Value):
        raise UnsupportedOperatorError(_NOT_CONSTANT)
    if len(x.shape) == 2:
        position, _ = recorder.placed(x)
        return recorder.add(Dense(weights, _bias(bias, weights.shape[0])), [position])
    inner = moved(lambda v: v.movedim(-1, 1), [x])
    position, shape = recorder.placed(inner)
    kernel = weights.reshape(*weights.shape, *(1,) * (len(shape) - 1))
    ones = (1,) * (len(shape) - 1)
    linear = convolution_map(shape, kernel, _bias(bias, weights.shape[0]), ones, [(0, 0)] * len(ones), ones, groups=1)
    return moved(lambda v: v.movedim(1, -1), [recorder.add(Affine(linear), [position])])


def matrix_product(recorder: Recorder, x: Any, other: Any = None, mat2: Any = None, vec: Any = None) -> Value:
    """x @ other, one of them a constant matrix or vector."""
    right = next(v for v in (other, mat2, vec) if v is not None)
    if isinstance(x, Value) and isinstance(right, Value):
        raise UnsupportedOperatorError(
            "multiplies two matrices that both depend on the input, as attention does; use convolutions or dense "
            "layers, or products of elements, x * y"
        )
    if isinstance(x, Value):
        if right.dim() > 2:
            raise UnsupportedOperatorError("is supported with one constant matrix for all inputs")
        if right.dim() == 1:
            return moved(lambda v: v.squeeze(-1), [dense(recorder, x, right[None])])
        return dense(recorder, x, right.T)
    if x.dim() != 2 or len(right.shape) < 3:
        raise UnsupportedOperatorError("is supported with one constant matrix for all inputs")
    swapped = moved(lambda v: v.transpose(-1, -2), [right])
    return moved(lambda v: v.transpose(-1, -2), [dense(recorder, swapped, x)])


def matrix_product_and_sum(
    recorder: Recorder, x: Any, mat1: Any, mat2: Any, beta: float = 1, alpha: float = 1
) -> Value:
    """beta x + alpha mat1 @ mat2."""
    if isinstance(x, Value):
        raise UnsupportedOperatorError("is supported with a constant that is added")
    return plus_constant(times_constant(matrix_product(recorder, mat1, mat2), torch.tensor(float(alpha))), beta * x)


def einstein_sum(recorder: Recorder, equation: str, tensors: Sequence[Any], path: Any = None) -> Value:
    """One tensor of the network and constants, in labels: the batch first, and not summed over."""
    del path
    terms, arrow, result = equation.replace(" ", "").partition("->")
    labels = terms.split(",")
    values = [(label, x) for label, x in zip(labels, tensors, strict=True) if isinstance(x, Value)]
    if len(values) != 1 or not arrow or "." in equation or any(len(set(label)) < len(label) for label in labels):
        raise UnsupportedOperatorError("is supported of one tensor of the network and constants, with named labels")
    [(read, value)] = values
    constants = [(label, x) for label, x in zip(labels, tensors, strict=True) if not isinstance(x, Value)]
    if read[:1] != result[:1] or any(read[0] in label for label, _ in constants):
        raise UnsupportedOperatorError("must keep the batch as its first label")
    sizes: dict[str, int] = {}
    for label, x in ((read, value), *constants):  # an axis of one goes with any other
        for axis, n in zip(label, x.shape, strict=True):
            sizes[axis] = max(n, sizes.get(axis, 1))
    value = expanded(value, [sizes[axis] for axis in read])
    constants = [(label, x.expand([sizes[axis] for axis in label])) for label, x in constants]
    position, shape = recorder.placed(value)
    every = [axis for axis in sizes if axis != read[0]]
    places = dict(zip(every, np.indices([sizes[label] for label in every]).reshape(len(every), -1), strict=True))

    def flat(label: str) -> Any:
        dims = tuple(sizes[a] for a in label)
        return np.ravel_multi_index([places[a] for a in label], dims) if label else np.zeros_like(places[every[0]])

    factor = np.ones(places[every[0]].size)
    for label, x in constants:
        factor = factor * _array(x).reshape(-1)[flat(label)]
    whole = tuple(sizes[a] for a in result)
    linear = LinearMap.from_entries(shape, whole[1:] or (1,), flat(result[1:]), flat(read[1:]), factor)
    made = recorder.add(Affine(linear), [position])
    return moved(lambda v: v.reshape(whole), [made])


def bilinear(recorder: Recorder, input1: Any, input2: Any, weight: Any, bias: Any = None) -> Value:
    """sum_ij x_i W_kij y_j + b_k: the products of all pairs, and a dense layer."""
    pairs = multiply(
        recorder,
        moved(lambda v: v.unsqueeze(-1), [input1]),
        moved(lambda v: v.unsqueeze(-2), [input2]),
    )
    return dense(recorder, moved(lambda v: v.flatten(-2), [pairs]), weight.flatten(1), bias)


# Normalisation


def batch_norm(  # noqa: PLR0913, PLR0917 - torch's arguments
    recorder: Recorder,
    x: Value,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    training: bool = False,
    eps: float = 1e-5,
    use_input_stats: bool = False,
    **_: Any,
) -> Value:
    """Normalisation by running statistics."""
    del recorder
    if training or use_input_stats or running_mean is None or running_var is None:
        raise UnsupportedOperatorError(
            "needs running statistics, which are constants at inference: "
            "take track_running_stats=True, and run training batches through it"
        )
    variance = _array(running_var) + eps
    if (variance <= 0).any():
        raise UnsupportedOperatorError(
            f"divides by the root of running_var + eps, {variance.min():g} in channel "
            f"{variance.argmin()}: take an eps above 0, 1e-5 by default, or leave out a channel that is always the same"
        )
    scale = 1 / np.sqrt(variance)
    if weight is not None:
        scale = scale * _array(weight)
    shift = _bias(bias, scale.size) - _array(running_mean) * scale
    across = (1, -1, *(1,) * (len(x.shape) - 2))
    scaled = times_constant(x, torch.tensor(scale).reshape(across))
    return plus_constant(scaled, torch.tensor(shift).reshape(across))


def batch_norm_with_statistics(recorder: Recorder, x: Value, **options: Any) -> list[Any]:
    """The form that also returns what it saved for training."""
    return [batch_norm(recorder, x, **options), None, None]


def _array(tensor: Any) -> Vector:
    """A copy: what happens to the module afterwards does not change the network."""
    if not isinstance(tensor, Tensor):
        raise UnsupportedOperatorError(_NOT_CONSTANT)
    return np.array(tensor.detach().double().numpy())


def _bias(bias: Any, size: int) -> Vector:
    return np.zeros(size) if bias is None else _array(bias)


def each(value: Any, count: int) -> list[int]:
    """One number for all axes, or one for each."""
    numbers = [value] if isinstance(value, int) else list(value)
    return numbers * count if len(numbers) == 1 else numbers


def _pads(padding: Any, kernel: Sequence[int], dilation: Sequence[int]) -> list[tuple[int, int]]:
    """Before and after each axis; "same" puts the odd one after, as torch does."""
    if padding == "valid":
        return [(0, 0)] * len(kernel)
    if padding == "same":
        whole = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return [(n // 2, n - n // 2) for n in whole]
    return [(p, p) for p in each(padding, len(kernel))]


RULES: dict[str, Rule] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution"), convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), transposed_convolution),
    "heinfer::sparse_convolution": sparse_convolution,
    "linear": dense,
    **dict.fromkeys(("matmul", "mm", "mv"), matrix_product),
    "addmm": matrix_product_and_sum,
    "einsum": einstein_sum,
    "bilinear": bilinear,
    **dict.fromkeys(("batch_norm", "instance_norm"), batch_norm),
    **dict.fromkeys(("_native_batch_norm_legit_no_training", "native_batch_norm"), batch_norm_with_statistics),
}
