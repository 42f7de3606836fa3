"""From a torch module to the tensor-level network, and a look whether that is what the module computes."""

from heinfer.frontend.faithful import require_same
from heinfer.frontend.trace import trace

__all__ = ["require_same", "trace"]
