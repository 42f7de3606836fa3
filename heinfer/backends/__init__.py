"""What runs circuits: the choice of a backend, and a circuit on it between frames that have been checked.

Nothing here loads SEAL or the native library before it is asked for.
"""

from heinfer.backends.choice import BACKENDS, choose_backend, open_ring, open_runtime, runtime_memory, without_native
from heinfer.backends.native.options import NativeOptions
from heinfer.backends.runtime import Handle, RingHandle, Runtime

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
