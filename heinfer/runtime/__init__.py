"""A circuit on a backend, between frames that have been checked: what a worker, a benchmark and a calibration run."""

from heinfer.runtime.choice import BACKENDS, WITHOUT_NATIVE, choose_backend, open_runtime, runtime_memory
from heinfer.runtime.native import NativeOptions
from heinfer.runtime.runtime import Handle, Runtime

__all__ = [
    "BACKENDS",
    "WITHOUT_NATIVE",
    "Handle",
    "NativeOptions",
    "Runtime",
    "choose_backend",
    "open_runtime",
    "runtime_memory",
]
