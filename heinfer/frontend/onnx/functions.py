"""What ONNX's operators compute, as functions of torch: by name, of tensors and attributes (onnx.ai/onnx/operators).

Constants among the inputs, such as shapes, are numbers in the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - as everywhere

from heinfer.errors import UnsupportedOperatorError
from heinfer.frontend.values import broadcast

Attributes = Mapping[str, Any]
Function = Callable[[Sequence[Any], Attributes], Any]


def _conv(inputs: Sequence[Any], a: Attributes) -> Any:
    x, weight, bias = _first(inputs, 3)
    along = weight.dim() - 2
    stride, dilation = _each(a, "strides", along), _each(a, "dilations", along)
    pads = _pads(x, a, list(weight.shape[2:]), stride, dilation)
    function = (F.conv1d, F.conv2d, F.conv3d)[along - 1]
    if pads[:along] == pads[along:]:
        return function(x, weight, bias, stride, pads[:along], dilation, a.get("group", 1))
    return function(F.pad(x, _torch_pads(pads)), weight, bias, stride, 0, dilation, a.get("group", 1))


def _conv_transpose(inputs: Sequence[Any], a: Attributes) -> Any:
    x, weight, bias = _first(inputs, 3)
    along = weight.dim() - 2
    pads = a.get("pads", [0] * 2 * along)
    before, after = pads[:along], pads[along:]
    if a.get("auto_pad", "NOTSET") != "NOTSET" or "output_shape" in a:
        raise UnsupportedOperatorError("is supported with pads, not with auto_pad and output_shape: export it so")
    more = a.get("output_padding", [0] * along)
    function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[along - 1]
    stride, dilation = _each(a, "strides", along), _each(a, "dilations", along)
    whole = function(x, weight, bias, stride, 0, more, a.get("group", 1), dilation)
    for axis in range(along):
        whole = whole.narrow(axis + 2, before[axis], whole.shape[axis + 2] - before[axis] - after[axis])
    return whole


def _pool(inputs: Sequence[Any], a: Attributes, *, is_mean: bool) -> Any:
    x = inputs[0]
    kernel = list(a["kernel_shape"])
    along = len(kernel)
    stride, dilation = _each(a, "strides", along), _each(a, "dilations", along)
    ceil = bool(a.get("ceil_mode", 0))
    if not is_mean:
        x = _padded(x, a, kernel, stride, dilation, -torch.inf)
        return (F.max_pool1d, F.max_pool2d, F.max_pool3d)[along - 1](x, kernel, stride, 0, dilation, ceil)
    if any(d != 1 for d in dilation):
        raise UnsupportedOperatorError("is supported without dilations")
    pads = _pads(x, a, kernel, stride, dilation)
    function = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[along - 1]
    counts = bool(a.get("count_include_pad", 0))
    if pads[:along] == pads[along:] and all(2 * p <= k for p, k in zip(pads, kernel, strict=False)):
        return function(x, kernel, stride, pads[:along], ceil, counts)
    whole = F.pad(x, _torch_pads(pads))
    if counts:
        return function(whole, kernel, stride, 0, ceil)
    there = F.pad(torch.ones_like(x), _torch_pads(pads))
    return function(whole, kernel, stride, 0, ceil) / function(there, kernel, stride, 0, ceil)


def _global_pool(inputs: Sequence[Any], a: Attributes) -> Any:
    del a
    return inputs[0].mean(dim=tuple(range(2, inputs[0].dim())), keepdim=True)


def _gemm(inputs: Sequence[Any], a: Attributes) -> Any:
    x, y, bias = _first(inputs, 3)
    x = x.T if a.get("transA", 0) else x
    y = y.T if a.get("transB", 0) else y
    found = a.get("alpha", 1.0) * (x @ y)
    return found if bias is None else found + a.get("beta", 1.0) * bias


def _batch_norm(inputs: Sequence[Any], a: Attributes) -> Any:
    x, weight, bias, mean, variance = _first(inputs, 5)
    return F.batch_norm(
        x, mean, variance, weight, bias, training=bool(a.get("training_mode", 0)), eps=a.get("epsilon", 1e-5)
    )


def _instance_norm(inputs: Sequence[Any], a: Attributes) -> Any:
    x, weight, bias = _first(inputs, 3)
    return F.instance_norm(x, None, None, weight, bias, eps=a.get("epsilon", 1e-5))


def _layer_norm(inputs: Sequence[Any], a: Attributes) -> Any:
    x, weight, bias = _first(inputs, 3)
    axis = a.get("axis", -1) % x.dim()
    return F.layer_norm(x, x.shape[axis:], weight, bias, a.get("epsilon", 1e-5))


def _group_norm(inputs: Sequence[Any], a: Attributes) -> Any:
    x, weight, bias = _first(inputs, 3)
    return F.group_norm(x, a["num_groups"], weight, bias, a.get("epsilon", 1e-5))


def _reshape(inputs: Sequence[Any], a: Attributes) -> Any:
    x, shape = inputs[0], _numbers(inputs[1])
    sizes = [x.shape[i] if n == 0 and not a.get("allowzero", 0) else n for i, n in enumerate(shape)]
    if sizes and sizes[0] == a.get("batch"):  # the file was made for batches of one size
        sizes[0] = x.shape[0]
    return x.reshape(sizes)


def _flatten(inputs: Sequence[Any], a: Attributes) -> Any:
    x = inputs[0]
    axis = a.get("axis", 1) % (x.dim() + 1)
    return x.flatten(1) if axis == 1 else x.reshape(torch.Size(x.shape[:axis]).numel(), -1)


def _squeeze(inputs: Sequence[Any], a: Attributes) -> Any:
    axes = _axes(inputs, a)
    return inputs[0].squeeze() if axes is None else inputs[0].squeeze(tuple(axes))


def _unsqueeze(inputs: Sequence[Any], a: Attributes) -> Any:
    x = inputs[0]
    axes = _axes(inputs, a) or []
    rank = x.dim() + len(axes)
    for axis in sorted(i % rank for i in axes):
        x = x.unsqueeze(axis)
    return x


def _split(inputs: Sequence[Any], a: Attributes) -> Any:
    x, axis = inputs[0], a.get("axis", 0)
    sizes = a.get("split") or (_numbers(inputs[1]) if len(inputs) > 1 and inputs[1] is not None else None)
    if sizes is None:
        count = a["num_outputs"]
        sizes = [len(part) for part in torch.arange(x.shape[axis]).chunk(count)]
    return list(x.split(list(sizes), axis))


def _slice(inputs: Sequence[Any], a: Attributes) -> Any:
    del a
    x, starts, ends, axes, steps = _first(inputs, 5)
    begin, end = _numbers(starts), _numbers(ends)
    along = _numbers(axes) if axes is not None else list(range(len(begin)))
    by = _numbers(steps) if steps is not None else [1] * len(begin)
    for axis, b, e, step in zip(along, begin, end, by, strict=True):
        places = range(x.shape[axis])[slice(b, None if step < 0 and e < -x.shape[axis] else e, step)]
        if step > 0:
            x = x[(slice(None),) * (axis % x.dim()) + (slice(places.start, places.stop, step),)]
        else:
            x = x.index_select(axis, torch.tensor(list(places)))
    return x


def _gather(inputs: Sequence[Any], a: Attributes) -> Any:
    x, index = _first(inputs, 2)
    axis = a.get("axis", 0) % x.dim()
    index = np.where(index < 0, index + x.shape[axis], index)
    found = x.index_select(axis, torch.tensor(index.reshape(-1)))
    return found.reshape(x.shape[:axis] + index.shape + x.shape[axis + 1 :])


def _pad(inputs: Sequence[Any], a: Attributes) -> Any:
    x, pads, value, axes = _first(inputs, 4)
    given = _numbers(pads)
    along = [i % x.dim() for i in (_numbers(axes) if axes is not None else range(x.dim()))]
    sizes = [(0, 0)] * x.dim()
    for number, axis in enumerate(along):
        sizes[axis] = given[number], given[number + len(along)]
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}[
        a.get("mode", "constant")
    ]
    flat = [n for pair in reversed(sizes) for n in pair]
    if mode == "constant":
        return F.pad(x, flat, value=0.0 if value is None else float(np.asarray(value).item()))
    if any(flat[2 * (x.dim() - 2) :]):
        raise UnsupportedOperatorError("is supported along the spatial axes")
    return F.pad(x, flat[: 2 * (x.dim() - 2)], mode=mode)


def _resize(inputs: Sequence[Any], a: Attributes) -> Any:
    x, _, scales, sizes = _first(inputs, 4)
    along = x.dim() - 2
    size = _numbers(sizes)[2:] if sizes is not None and sizes.size else None
    factor = None if size else [float(n) for n in scales[2:]]
    mode, how = a.get("mode", "nearest"), a.get("coordinate_transformation_mode", "half_pixel")
    if mode == "nearest":
        if how == "asymmetric" and a.get("nearest_mode", "round_prefer_floor") == "floor":
            return F.interpolate(x, size, factor, "nearest")
        if how == "half_pixel" and a.get("nearest_mode", "round_prefer_floor") == "round_prefer_floor":
            return F.interpolate(x, size, factor, "nearest-exact")
    elif how in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        kind = {("linear", 1): "linear", ("linear", 2): "bilinear", ("linear", 3): "trilinear", ("cubic", 2): "bicubic"}
        if (mode, along) in kind and a.get("cubic_coeff_a", -0.75) == -0.75:
            return F.interpolate(x, size, factor, kind[mode, along], align_corners=how == "align_corners")
    raise UnsupportedOperatorError(
        f"with mode {mode}, {how} and nearest_mode {a.get('nearest_mode', 'round_prefer_floor')} is not supported: "
        "interpolate as torch does, nearest or linear"
    )


def _depth_to_space(inputs: Sequence[Any], a: Attributes) -> Any:
    x, b = inputs[0], a["blocksize"]
    if a.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, b)
    n, c, h, w = x.shape
    return x.reshape(n, b, b, c // b**2, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, c // b**2, h * b, w * b)


def _space_to_depth(inputs: Sequence[Any], a: Attributes) -> Any:
    x, b = inputs[0], a["blocksize"]
    n, c, h, w = x.shape
    return x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4).reshape(n, c * b**2, h // b, w // b)


def _reduced(function: Callable[..., Tensor]) -> Function:
    def reduce(inputs: Sequence[Any], a: Attributes) -> Any:
        axes = _axes(inputs, a)
        if axes is None:
            axes = [] if a.get("noop_with_empty_axes", 0) else list(range(inputs[0].dim()))
        return function(inputs[0], tuple(axes), bool(a.get("keepdims", 1))) if axes else inputs[0]

    return reduce


def _cast(inputs: Sequence[Any], a: Attributes) -> Any:
    kinds = {1: torch.float32, 11: torch.float64, 6: torch.int32, 7: torch.int64, 9: torch.bool, 10: torch.float16}
    kind = kinds.get(a["to"])
    x = inputs[0]
    if kind is None:
        raise UnsupportedOperatorError(f"to ONNX's type {a['to']} is not supported")
    return x if kind.is_floating_point and kind != torch.float16 and x.is_floating_point() else x.to(kind)


def _of_numbers_alone(inputs: Sequence[Any], a: Attributes) -> Any:
    del inputs, a
    raise UnsupportedOperatorError("reads what depends on the input, where a number of the graph is expected")


def _scaler(inputs: Sequence[Any], a: Attributes) -> Any:
    return (inputs[0] - torch.tensor(a["offset"]).to(inputs[0])) * torch.tensor(a["scale"]).to(inputs[0])


def _linear_classifier(inputs: Sequence[Any], a: Attributes) -> Any:
    if a.get("post_transform", "NONE") not in ("NONE", "SOFTMAX", "LOGISTIC"):
        raise UnsupportedOperatorError(f"with post_transform {a['post_transform']} is not supported: take raw scores")
    classes = len(a["intercepts"])
    weight = torch.tensor(a["coefficients"]).reshape(classes, -1).to(inputs[0])
    scores = F.linear(inputs[0], weight, torch.tensor(a["intercepts"]).to(inputs[0]))
    if a.get("post_transform", "NONE") != "NONE":
        scores = scores.softmax(1) if a["post_transform"] == "SOFTMAX" else scores.sigmoid()
    return [None, scores]


def _linear_regressor(inputs: Sequence[Any], a: Attributes) -> Any:
    weight = torch.tensor(a["coefficients"]).reshape(a.get("targets", 1), -1).to(inputs[0])
    bias = a.get("intercepts")
    return F.linear(inputs[0], weight, None if bias is None else torch.tensor(bias).to(inputs[0]))


def _plain(function: Callable[..., Any]) -> Function:
    """A function of the inputs alone."""
    return lambda inputs, _: function(*inputs)


def _with(function: Callable[..., Any], **names: tuple[str, Any]) -> Function:
    """A function of the first input and some attributes, by ONNX's name and default."""
    return lambda inputs, a: function(inputs[0], **{to: a.get(name, default) for to, (name, default) in names.items()})


def _sum(*inputs: Tensor) -> Tensor:
    return sum(inputs[1:], inputs[0])


def _first(inputs: Sequence[Any], count: int) -> list[Any]:
    return [*inputs, *[None] * count][:count]


def _numbers(x: Any) -> list[int]:
    return [int(n) for n in x.reshape(-1)]


def _axes(inputs: Sequence[Any], a: Attributes) -> list[int] | None:
    if len(inputs) > 1 and inputs[1] is not None:
        return _numbers(inputs[1])
    return list(a["axes"]) if "axes" in a else None


def _each(a: Attributes, name: str, along: int) -> list[int]:
    return list(a.get(name, [1] * along))


def _pads(x: Tensor, a: Attributes, kernel: list[int], stride: list[int], dilation: list[int]) -> list[int]:
    """Before all axes, then after all."""
    along, auto = len(kernel), a.get("auto_pad", "NOTSET")
    if auto in ("NOTSET", ""):
        return list(a.get("pads", [0] * 2 * along))
    if auto == "VALID":
        return [0] * 2 * along
    before, after = [], []
    for n, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True):
        whole = max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)
        less, more = whole // 2, whole - whole // 2
        before.append(less if auto == "SAME_UPPER" else more)
        after.append(more if auto == "SAME_UPPER" else less)
    return before + after


def _torch_pads(pads: list[int]) -> list[int]:
    along = len(pads) // 2
    return [n for i in reversed(range(along)) for n in (pads[i], pads[along + i])]


def _padded(
    x: Tensor, a: Attributes, kernel: list[int], stride: list[int], dilation: list[int], value: float
) -> Tensor:
    pads = _pads(x, a, kernel, stride, dilation)
    return F.pad(x, _torch_pads(pads), value=value) if any(pads) else x


READS_NUMBERS = frozenset({"Pow", "Clip", "Resize", "Pad"})
"""Whose further inputs are real numbers of the file, not tensors."""

FUNCTIONS: dict[str, Function] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "AveragePool": lambda inputs, a: _pool(inputs, a, is_mean=True),
    "MaxPool": lambda inputs, a: _pool(inputs, a, is_mean=False),
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": lambda inputs, _: inputs[0].amax(tuple(range(2, inputs[0].dim())), keepdim=True),
    "Gemm": _gemm,
    "MatMul": _plain(torch.matmul),
    "Einsum": lambda inputs, a: torch.einsum(a["equation"], *inputs),
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "GroupNormalization": _group_norm,
    "LRN": lambda inputs, a: F.local_response_norm(
        inputs[0], a["size"], a.get("alpha", 1e-4), a.get("beta", 0.75), a.get("bias", 1.0)
    ),
    "Add": _plain(torch.add),
    "Sub": _plain(torch.sub),
    "Mul": _plain(torch.mul),
    "Div": _plain(torch.div),
    "Neg": _plain(torch.neg),
    "Pow": lambda inputs, _: inputs[0] ** inputs[1].item(),
    "Sum": _plain(_sum),
    "Mean": _plain(lambda *inputs: _sum(*inputs) / len(inputs)),
    "ReduceMean": _reduced(torch.mean),
    "ReduceSum": _reduced(torch.sum),
    "ReduceMax": _reduced(torch.amax),
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": lambda inputs, a: inputs[0].permute(a.get("perm") or list(reversed(range(inputs[0].dim())))),
    "Concat": lambda inputs, a: torch.cat(list(inputs), a["axis"]),
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Pad": _pad,
    "Expand": lambda inputs, _: inputs[0].expand(broadcast(inputs[0].shape, _numbers(inputs[1]))),
    "Tile": lambda inputs, _: inputs[0].repeat(_numbers(inputs[1])),
    "Resize": _resize,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "Identity": lambda inputs, _: inputs[0],
    "Dropout": lambda inputs, _: [inputs[0], None],
    "Cast": _cast,
    "CastLike": lambda inputs, _: inputs[0],
    "Shape": _of_numbers_alone,
    "Constant": _of_numbers_alone,
    "ConstantOfShape": _of_numbers_alone,
    "Range": _of_numbers_alone,
    "Where": _plain(torch.where),
    "Equal": _plain(torch.eq),
    "Less": _plain(torch.lt),
    "Greater": _plain(torch.gt),
    "Not": _plain(torch.logical_not),
    "Min": _plain(lambda x, *more: torch.minimum(x, more[0]) if more else x),
    "Max": _plain(lambda x, *more: torch.maximum(x, more[0]) if more else x),
    "Relu": _plain(torch.relu),
    "LeakyRelu": _with(F.leaky_relu, negative_slope=("alpha", 0.01)),
    "PRelu": lambda inputs, _: torch.where(inputs[0] > 0, inputs[0], inputs[0] * inputs[1]),
    "Elu": _with(F.elu, alpha=("alpha", 1.0)),
    "Selu": _plain(F.selu),
    "Gelu": _with(F.gelu, approximate=("approximate", "none")),
    "HardSigmoid": lambda inputs, a: (a.get("alpha", 0.2) * inputs[0] + a.get("beta", 0.5)).clamp(0, 1),
    "HardSwish": _plain(F.hardswish),
    "Mish": _plain(F.mish),
    "Sigmoid": _plain(torch.sigmoid),
    "Tanh": _plain(torch.tanh),
    "Softplus": _plain(F.softplus),
    "Softsign": _plain(F.softsign),
    "Softmax": _with(torch.softmax, dim=("axis", -1)),
    "LogSoftmax": _with(torch.log_softmax, dim=("axis", -1)),
    "ArgMax": lambda inputs, a: inputs[0].argmax(a.get("axis", 0), bool(a.get("keepdims", 1))),
    "Clip": lambda inputs, _: inputs[0].clamp(*(None if x is None else x.item() for x in _first(inputs[1:], 2))),
    "Sqrt": _plain(torch.sqrt),
    "Reciprocal": _plain(torch.reciprocal),
    "Exp": _plain(torch.exp),
    "Log": _plain(torch.log),
    "Erf": _plain(torch.erf),
    "Abs": _plain(torch.abs),
    "Scaler": _scaler,
    "LinearClassifier": _linear_classifier,
    "LinearRegressor": _linear_regressor,
}
