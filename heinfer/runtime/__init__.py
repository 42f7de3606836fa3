"""A circuit on a backend, between frames that have been checked: what a worker, a benchmark and a calibration run."""

from heinfer.runtime.choice import BACKENDS, choose_backend, open_ring, open_runtime, runtime_memory, without_native
from heinfer.runtime.native import NativeOptions
from heinfer.runtime.runtime import Handle, RingHandle, Runtime

__all__ = [
    "BACKENDS",
    "Handle",
    "NativeOptions",
    "RingHandle",
    "Runtime",
    "choose_backend",
    "open_ring",
    "open_runtime",
    "runtime_memory",
    "without_native",
]
