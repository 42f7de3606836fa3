"""The backends that this machine can run: without a C++ compiler there is no native one."""

from heinfer.backends import BACKENDS
from heinfer.backends.native import native_problem

INSTALLED = tuple(backend for backend in BACKENDS if backend != "native" or not native_problem())
