"""The native backend: circuits on 32-bit residues, by heinfer-native, a distribution of its own."""

from heinfer.backends.native.keys import NativeKeys
from heinfer.backends.native.library import is_installed, native_problem
from heinfer.backends.native.plan import NativePlan, native_plan
from heinfer.backends.native.program import NativeProgram, Progress
from heinfer.backends.native.ring import NativeRing

__all__ = [
    "NativeKeys",
    "NativePlan",
    "NativeProgram",
    "NativeRing",
    "Progress",
    "is_installed",
    "native_plan",
    "native_problem",
]
