"""From a torch module to the tensor-level network, and a look whether that is what the module computes."""

from heinfer.frontend.assumed import Assumed, Verdict, assume, example_shape
from heinfer.frontend.faithful import require_same
from heinfer.frontend.trace import Model, module_of, trace

__all__ = ["Assumed", "Model", "Verdict", "assume", "example_shape", "module_of", "require_same", "trace"]
