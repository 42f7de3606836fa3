"""What to write instead of a module or function that has no encrypted form."""

from __future__ import annotations

FLATTEN = "write torch.flatten(x, 1)"
FUNCTIONS = "use Conv2d, Linear, BatchNorm, AvgPool2d, Flatten, x + y, torch.cat or heinfer.nn layers"
MODULES = "use Conv2d, Linear, BatchNorm, AvgPool2d, Flatten, Dropout or heinfer.nn layers, and train again"

_ACTIVATION = "replace activations by heinfer.nn.PolyActivation, and fine-tune"
_MAX_POOL = "replace max pooling by average pooling, nn.AvgPool2d, and fine-tune"
_WINDOW = (
    "its window follows from the size of the input; use nn.AvgPool2d(k) with the k that it has here: the height and "
    "width of the input where one value a channel is left"
)
_SCORES = "leave it off: the largest score stays the largest, so labels do not change"
_PRODUCT = (
    "put a constant factor into the weights before it, write a square as heinfer.nn.PolyActivation, and otherwise "
    + FUNCTIONS
)
_DIFFERENCE = "give the weights before what is subtracted the other sign, and write x + y"
_LINE = "write it in two dimensions, nn.Conv2d, nn.AvgPool2d or nn.BatchNorm2d, on inputs of shape (N, C, 1, L)"
_VOLUME = (
    "inputs are images of two dimensions: make channels of the third, for nn.Conv2d, nn.AvgPool2d or nn.BatchNorm2d"
)
_RECURRENT = (
    "its gates are no polynomials and repeat at every step; use convolutions or dense layers of the whole input, and "
    "train again"
)
_ATTENTION = "it takes a softmax of products of its inputs; use convolutions, and train again"
_STATISTICS = (
    "it divides by statistics of the input at hand; use nn.BatchNorm2d, whose statistics are constants, and train again"
)
_LIST = "it says not in which order its layers are called: make it an nn.Sequential, or write the forward of a module"
_SYNC = (
    "put an nn.BatchNorm2d of as many channels there and load_state_dict its state_dict(): at inference they compute "
    "the same"
)
_LARGER = "layers here keep or reduce the height and width; leave it out, and train again"
_PADDING = "give padding= to the convolution after it, which pads with zeros"
_INDICES = "it takes whole numbers as indices, and inputs are real numbers; begin with a convolution or nn.Linear"
_FUNCTIONAL = "write it as a module, nn.{}, whose weights the compiler reads"


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_WAYS_OUT = {
    **dict.fromkeys(
        _names(
            "relu relu6 leakyrelu prelu rrelu elu selu celu gelu silu mish tanh sigmoid logsigmoid hardtanh "
            "hardsigmoid hardswish hardshrink softshrink tanhshrink softplus softsign threshold glu clamp clip abs exp "
            "log sqrt rsqrt erf maximum minimum where"
        ),
        _ACTIVATION,
    ),
    **dict.fromkeys(_names("maxpool1d maxpool2d maxpool3d fractionalmaxpool2d adaptivemaxpool2d amax max"), _MAX_POOL),
    **dict.fromkeys(_names("adaptiveavgpool1d adaptiveavgpool2d adaptiveavgpool3d mean"), _WINDOW),
    **dict.fromkeys(_names("softmax softmax2d softmin logsoftmax argmax"), _SCORES),
    **dict.fromkeys(_names("view reshape flatten squeeze unflatten"), FLATTEN),
    **dict.fromkeys(_names("mul imul matmul bmm mm pow square truediv div itruediv neg multiply einsum"), _PRODUCT),
    **dict.fromkeys(_names("sub isub subtract rsub"), _DIFFERENCE),
    **dict.fromkeys(_names("conv1d avgpool1d"), _LINE),
    **dict.fromkeys(_names("conv3d avgpool3d batchnorm3d"), _VOLUME),
    **dict.fromkeys(_names("rnn lstm gru rnncell lstmcell grucell"), _RECURRENT),
    **dict.fromkeys(
        _names(
            "multiheadattention transformer transformerencoder transformerencoderlayer transformerdecoder "
            "transformerdecoderlayer scaleddotproductattention"
        ),
        _ATTENTION,
    ),
    **dict.fromkeys(
        _names("layernorm groupnorm rmsnorm instancenorm1d instancenorm2d instancenorm3d localresponsenorm normalize"),
        _STATISTICS,
    ),
    **dict.fromkeys(_names("modulelist moduledict"), _LIST),
    "syncbatchnorm": _SYNC,
    **dict.fromkeys(
        _names(
            "convtranspose1d convtranspose2d convtranspose3d upsample upsamplingnearest2d upsamplingbilinear2d "
            "interpolate pixelshuffle maxunpool2d fold"
        ),
        _LARGER,
    ),
    **dict.fromkeys(_names("pad zeropad2d constantpad2d reflectionpad2d replicationpad2d circularpad2d"), _PADDING),
    **dict.fromkeys(_names("embedding embeddingbag"), _INDICES),
    "conv2d": _FUNCTIONAL.format("Conv2d"),
    "linear": _FUNCTIONAL.format("Linear"),
    "batchnorm": _FUNCTIONAL.format("BatchNorm2d"),
    "avgpool2d": "write it as a module, nn.AvgPool2d",
}

OWN = "its class is not known; write its forward with layers and functions that have one, and it is followed"


def way_out(name: str, otherwise: str = MODULES) -> str:
    """By the name of a module's type or of a function: ``LogSoftmax`` and ``log_softmax`` are one."""
    return _WAYS_OUT.get(name.lower().replace("_", ""), otherwise)
