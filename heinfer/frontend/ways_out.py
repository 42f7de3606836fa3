"""What to write instead of a module or function that has no encrypted form."""

from __future__ import annotations

FLATTEN = "write torch.flatten(x, 1)"

_ACTIVATION = "replace activations by heinfer.nn.PolyActivation and max pooling by average pooling, and fine-tune"
_WINDOW = (
    "its window follows from the size of the input; use nn.AvgPool2d(k) with the k that it has here: the height and "
    "width of the input where one value a channel is left"
)
_SCORES = "leave it off: the largest score stays the largest, so labels do not change"

_WAYS_OUT = {
    **dict.fromkeys(("adaptiveavgpool2d", "mean"), _WINDOW),
    **dict.fromkeys(("softmax", "logsoftmax"), _SCORES),
    **dict.fromkeys(("view", "reshape", "flatten", "squeeze"), FLATTEN),
    **dict.fromkeys(("relu", "leakyrelu", "elu", "gelu", "silu", "tanh", "sigmoid", "maxpool2d"), _ACTIVATION),
}


def way_out(name: str, otherwise: str = _ACTIVATION) -> str:
    """By the name of a module's type or of a function: ``LogSoftmax`` and ``log_softmax`` are one."""
    return _WAYS_OUT.get(name.lower().replace("_", ""), otherwise)
