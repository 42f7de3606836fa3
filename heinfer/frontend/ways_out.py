"""What to write instead of a module or function that has no encrypted form."""

from __future__ import annotations

_ACTIVATION = "replace activations by heinfer.nn.PolyActivation, or by heinfer.convert.polynomialize, and fine-tune"
_MAX_POOL = "replace max pooling by average pooling of the same windows, nn.AvgPool2d, and fine-tune"
_SCORES = "leave it off: the largest score stays the largest, so labels do not change"
_RECURRENT = (
    "its gates are no polynomials and repeat at every step; use convolutions or dense layers of the whole input, and "
    "train again"
)
_ATTENTION = "it takes a softmax of products of its inputs; use convolutions, and train again"
_STATISTICS = (
    "it divides by statistics of the input at hand; use heinfer.convert.polynomialize, which fixes them, or "
    "nn.BatchNorm2d, whose are constants, and train again"
)
_LIST = "it says not in which order its layers are called: make it an nn.Sequential, or write the forward of a module"
_INDICES = "it takes whole numbers as indices, and inputs are real numbers; begin with a convolution or nn.Linear"


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_WAYS_OUT = {
    **dict.fromkeys(
        _names(
            "relu relu6 leakyrelu prelu rrelu elu selu celu gelu silu mish tanh sigmoid logsigmoid hardtanh "
            "hardsigmoid hardswish hardshrink softshrink tanhshrink softplus softsign threshold glu clamp clampmin "
            "clampmax clip abs exp log sqrt rsqrt erf maximum minimum where sin cos sign reciprocal"
        ),
        _ACTIVATION,
    ),
    **dict.fromkeys(
        _names(
            "maxpool1d maxpool2d maxpool3d maxpool2dwithindices fractionalmaxpool2d adaptivemaxpool1d "
            "adaptivemaxpool2d amax max"
        ),
        _MAX_POOL,
    ),
    **dict.fromkeys(_names("softmax softmax2d softmin logsoftmax argmax topk sort"), _SCORES),
    **dict.fromkeys(_names("rnn lstm gru rnncell lstmcell grucell rnntanh rnnrelu"), _RECURRENT),
    **dict.fromkeys(
        _names(
            "multiheadattention transformer transformerencoder transformerencoderlayer transformerdecoder "
            "transformerdecoderlayer scaleddotproductattention bmm baddbmm"
        ),
        _ATTENTION,
    ),
    **dict.fromkeys(
        _names(
            "layernorm groupnorm rmsnorm instancenorm1d instancenorm2d instancenorm3d instancenorm localresponsenorm "
            "normalize linalgvectornorm norm std var"
        ),
        _STATISTICS,
    ),
    **dict.fromkeys(_names("modulelist moduledict"), _LIST),
    **dict.fromkeys(_names("embedding embeddingbag"), _INDICES),
}


def way_out(name: str) -> str:
    """By the name of a module's class or of a function, ``LogSoftmax`` and ``log_softmax`` alike; "" for any other."""
    return _WAYS_OUT.get(name.lower().replace("_", ""), "")


def by_way_out() -> dict[str, list[str]]:
    """Names of functions and classes by what to do instead."""
    found: dict[str, list[str]] = {}
    for name, way in _WAYS_OUT.items():
        found.setdefault(way, []).append(name)
    return found
