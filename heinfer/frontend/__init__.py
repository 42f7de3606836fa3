"""From a torch module to the tensor-level network, and a look whether that is what the module computes."""

from heinfer.frontend.assumed import Assumed, Verdict, assume, example_shape
from heinfer.frontend.faithful import require_same
from heinfer.frontend.trace import Model, module_of, plain_module, trace

__all__ = [
    "Assumed",
    "Model",
    "Verdict",
    "assume",
    "example_shape",
    "module_of",
    "plain_module",
    "require_same",
    "trace",
]
