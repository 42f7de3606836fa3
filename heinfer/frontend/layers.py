"""Layers that mix elements: convolutions, dense layers, pools, means and sums, interpolation; and normalisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heinfer.errors import UnsupportedOperatorError
from heinfer.frontend.calls import Rule
from heinfer.frontend.elementwise import multiply
from heinfer.frontend.recorder import Recorder, Shape
from heinfer.frontend.values import Value, moved, plus_constant, times_constant
from heinfer.network.linear_map import LinearMap
from heinfer.network.operators import Affine, AveragePool, Convolution, Dense, SparseConvolution
from heinfer.network.pairs import Vector
from heinfer.network.windows import convolution_map, resampling_map, transposed_convolution_map

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
    steps, apart = _each(stride, len(kernel)), _each(dilation, len(kernel))
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
    steps, pads, more, apart = (_each(v, along) for v in (stride, padding, output_padding, dilation))
    offset = _bias(bias, weights.shape[1] * groups)
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
    steps, pads = _each(stride, 2), _each(padding, 2)
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


def matrix_product(recorder: Recorder, x: Any, other: Any = None, mat2: Any = None, tensor2: Any = None) -> Value:
    """x @ other, one of them a constant matrix or vector."""
    right = next(v for v in (other, mat2, tensor2) if v is not None)
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
    position, shape = recorder.placed(value)
    sizes = dict(zip(read[1:], shape, strict=True))
    for label, x in constants:
        sizes |= dict(zip(label, x.shape, strict=True))
    every = list(sizes)
    places = dict(zip(every, np.indices([sizes[label] for label in every]).reshape(len(every), -1), strict=True))

    def flat(label: str) -> Any:
        dims = tuple(sizes[a] for a in label)
        return np.ravel_multi_index([places[a] for a in label], dims) if label else np.zeros_like(places[every[0]])

    factor = np.ones(places[every[0]].size)
    for label, x in constants:
        factor = factor * _array(x).reshape(-1)[flat(label)]
    out_shape = tuple(sizes[a] for a in result[1:])
    linear = LinearMap.from_entries(shape, out_shape, flat(result[1:]), flat(read[1:]), factor)
    return recorder.add(Affine(linear), [position])


def bilinear(recorder: Recorder, input1: Any, input2: Any, weight: Any, bias: Any = None) -> Value:
    """sum_ij x_i W_kij y_j + b_k: the products of all pairs, and a dense layer."""
    pairs = multiply(
        recorder,
        moved(lambda v: v.unsqueeze(-1), [input1]),
        moved(lambda v: v.unsqueeze(-2), [input2]),
    )
    return dense(recorder, moved(lambda v: v.flatten(-2), [pairs]), weight.flatten(1), bias)


# Pools, means and interpolation


def average_pool(  # noqa: PLR0913 - torch's arguments
    recorder: Recorder,
    x: Value,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    along: int,
) -> Value:
    """Average pooling with any padding, in any number of dimensions."""
    kernel = _each(kernel_size, along)
    steps = _each(stride or kernel, along)
    pads = _each(padding, along)
    if along == 2 and not any(pads) and not ceil_mode and divisor_override is None and len(x.shape) == 4:
        position, _ = recorder.placed(x)
        return recorder.add(AveragePool((kernel[0], kernel[1]), (steps[0], steps[1])), [position])
    function = getattr(torch.nn.functional, f"avg_pool{along}d")
    options = {} if along == 1 else {"divisor_override": divisor_override}
    return _resampled(recorder, x, along, lambda v: function(
        v, kernel, steps, pads, ceil_mode=ceil_mode, count_include_pad=count_include_pad, **options
    ))  # fmt: skip


def adaptive_average_pool(recorder: Recorder, x: Value, output_size: Any, *, along: int) -> Value:
    """Average pooling to a size, the global pool among them."""
    function = getattr(torch.nn.functional, f"adaptive_avg_pool{along}d")
    return _resampled(recorder, x, along, lambda v: function(v, tuple(_each(output_size, along))))


def mean(recorder: Recorder, x: Value, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
    """The mean over axes, not the batch."""
    return _reduced(recorder, x, dim, keepdim, dtype, is_mean=True)


def total(recorder: Recorder, x: Value, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
    """The sum over axes, not the batch."""
    return _reduced(recorder, x, dim, keepdim, dtype, is_mean=False)


def _reduced(recorder: Recorder, x: Value, dim: Any, keepdim: bool, dtype: Any, *, is_mean: bool) -> Value:
    del dtype
    dims = range(len(x.shape)) if dim is None or dim == [] else [dim] if isinstance(dim, int) else dim
    axes = sorted(d % len(x.shape) for d in dims)
    if 0 in axes:
        raise UnsupportedOperatorError("runs over the batch: keep its axis, dim 0, out of it")
    position, shape = recorder.placed(x)
    matrices = [
        np.full((1, n), 1 / n if is_mean else 1.0) if axis in axes else np.eye(n) for axis, n in enumerate(shape, 1)
    ]
    made = recorder.add(Affine(resampling_map(shape, matrices)), [position])
    return made if keepdim else moved(lambda v: v.squeeze(tuple(axes)), [made])


def cumulative_sum(recorder: Recorder, x: Value, dim: int, dtype: Any = None) -> Value:
    """The running sum along an axis, not the batch."""
    del dtype
    axis = dim % len(x.shape)
    position, shape = recorder.placed(x)
    if not axis:
        raise UnsupportedOperatorError("runs over the batch: keep its axis, dim 0, out of it")
    matrices = [np.tril(np.ones((n, n))) if axis == number else np.eye(n) for number, n in enumerate(shape, 1)]
    return recorder.add(Affine(resampling_map(shape, matrices)), [position])


def _resampled(recorder: Recorder, x: Value, along: int, function: Callable[[Tensor], Tensor]) -> Value:
    """A function of every channel by itself, the same for all, that is a product of maps along its axes.

    The map along an axis is read off by running the function on what varies along that alone.
    """
    position, shape = recorder.placed(x)
    if len(shape) != along + 1:
        raise UnsupportedOperatorError(f"takes (N, channels, {along} axes), got {(2, *shape)}")
    sizes = shape[1:]
    constant = function(torch.ones(1, 1, *sizes, dtype=torch.float64))[0, 0]
    middle = tuple(n // 2 for n in constant.shape)
    matrices: list[Vector] = [np.eye(shape[0])]
    for axis, n in enumerate(sizes):
        basis = torch.eye(n, dtype=torch.float64).reshape(n, 1, *(n if a == axis else 1 for a in range(along)))
        found = function(basis.expand(n, 1, *sizes))[:, 0]
        line = found[(slice(None), *(slice(None) if a == axis else middle[a] for a in range(along)))].T
        matrices.append(np.array(line.numpy()) / (float(constant[middle]) if axis else 1.0))
    linear = resampling_map(shape, matrices)
    _require_separable(linear, shape, function)
    return recorder.add(Affine(linear), [position])


def _require_separable(linear: LinearMap, shape: Shape, function: Callable[[Tensor], Tensor]) -> None:
    sample = np.random.default_rng(0).normal(size=(1, *shape))
    expected = function(torch.tensor(sample)).numpy()
    if np.abs(linear(sample) - expected).max() > 1e-12 * max(1.0, np.abs(expected).max()):
        raise UnsupportedOperatorError("with these options acts on both axes at once, which is not supported")


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


def _each(value: Any, count: int) -> list[int]:
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
    return [(p, p) for p in _each(padding, len(kernel))]


def _along(rule: Callable[..., Value], along: int) -> Rule:
    def of_these_axes(recorder: Recorder, **arguments: Any) -> Value:
        return rule(recorder, along=along, **arguments)

    of_these_axes.__doc__ = rule.__doc__
    return of_these_axes


def _interpolations() -> dict[str, Rule]:
    found: dict[str, Rule] = {}
    for name, along in (("linear1d", 1), ("bilinear2d", 2), ("bicubic2d", 2), ("trilinear3d", 3)):
        for variant in (f"upsample_{name}", f"_upsample_{name}_aa"):
            if hasattr(torch.ops.aten, variant):
                found[variant] = interpolation_of(variant, along)
    return found


def interpolation_of(name: str, along: int) -> Rule:
    packet = getattr(torch.ops.aten, name)

    def rule(recorder: Recorder, x: Value, **options: Any) -> Value:
        """Linear and cubic interpolation of every channel."""
        overload = packet.vec if "scale_factors" in options else packet.default
        return _resampled(recorder, x, along, lambda v: overload(v, **options))

    return rule


RULES: dict[str, Rule] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution"), convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), transposed_convolution),
    "heinfer::sparse_convolution": sparse_convolution,
    "linear": dense,
    **dict.fromkeys(("matmul", "mm", "mv"), matrix_product),
    "addmm": matrix_product_and_sum,
    "einsum": einstein_sum,
    "bilinear": bilinear,
    **{f"avg_pool{n}d": _along(average_pool, n) for n in (1, 2, 3)},
    **{f"adaptive_avg_pool{n}d": _along(adaptive_average_pool, n) for n in (1, 2, 3)},
    **{f"_adaptive_avg_pool{n}d": _along(adaptive_average_pool, n) for n in (2, 3)},
    **_interpolations(),
    "mean": mean,
    "sum": total,
    "cumsum": cumulative_sum,
    **dict.fromkeys(("batch_norm", "instance_norm"), batch_norm),
    **dict.fromkeys(("_native_batch_norm_legit_no_training", "native_batch_norm"), batch_norm_with_statistics),
}
