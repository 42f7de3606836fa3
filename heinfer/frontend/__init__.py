"""From a torch module to the tensor-level network."""

from heinfer.frontend.trace import trace

__all__ = ["trace"]
