"""The native backend: circuits on 32-bit residues, by heinfer-native, a distribution of its own."""

from heinfer.backends.native.keys import NativeKeys
from heinfer.backends.native.library import native_problem
from heinfer.backends.native.options import DEFAULTS, NativeOptions
from heinfer.backends.native.plan import NativePlan, native_plan
from heinfer.backends.native.program import NativeProgram
from heinfer.backends.native.ring import NativeRing

__all__ = [
    "DEFAULTS",
    "NativeKeys",
    "NativeOptions",
    "NativePlan",
    "NativeProgram",
    "NativeRing",
    "native_plan",
    "native_problem",
]
