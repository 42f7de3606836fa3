"""Pools, means, sums and interpolation: every axis of a tensor by a matrix of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heinfer.errors import UnsupportedOperatorError
from heinfer.frontend.calls import Rule
from heinfer.frontend.layers import each
from heinfer.frontend.recorder import Recorder, Shape
from heinfer.frontend.values import Value, moved
from heinfer.network.linear_map import LinearMap
from heinfer.network.operators import Affine, AveragePool
from heinfer.network.pairs import Vector
from heinfer.network.windows import resampling_map


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
    kernel = each(kernel_size, along)
    steps = each(stride or kernel, along)
    pads = each(padding, along)
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
    return _resampled(recorder, x, along, lambda v: function(v, tuple(each(output_size, along))))


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
    **{f"avg_pool{n}d": _along(average_pool, n) for n in (1, 2, 3)},
    **{f"adaptive_avg_pool{n}d": _along(adaptive_average_pool, n) for n in (1, 2, 3)},
    **{f"_adaptive_avg_pool{n}d": _along(adaptive_average_pool, n) for n in (2, 3)},
    **_interpolations(),
    "mean": mean,
    "sum": total,
    "cumsum": cumulative_sum,
}
