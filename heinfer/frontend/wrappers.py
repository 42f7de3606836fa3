"""Modules that torch.compile made: what is inside is compiled, where the backend computes what is inside."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from torch import nn

from heinfer.errors import CompileError


def wraps(module: nn.Module) -> bool:
    """Whether a module is one that torch.compile made of another, or derives from such a class."""
    loaded = sys.modules.get("torch._dynamo.eval_frame")  # slow to import
    return loaded is not None and isinstance(module, loaded.OptimizedModule)


def unwrapped(module: nn.Module) -> nn.Module:
    """What is inside any wrappers around a module."""
    while wraps(module):
        module = module.get_submodule("_orig_mod")
    return module


def wrapper_problems(path: str, part: nn.Module) -> Iterator[CompileError]:
    """Name what a compiled module runs instead of the module inside."""
    named = path or "the model itself"
    if not wraps(part):
        if part._compiled_call_impl is not None and not _has_known_backend(part._compiled_call_impl):
            yield CompileError(
                f"{named}: it is compiled in place by a backend of its own, which the compiled network would not "
                "follow: set its _compiled_call_impl = None, which undoes that"
            )
        return
    forward = vars(part).get("_forward") or vars(part).get("forward")  # a lazy module's comes after a check
    module = sys.modules["torch._dynamo.eval_frame"]
    if type(part).__name__ != "OptimizedModule" or getattr(forward, "__globals__", None) is not vars(module):
        way = "has a forward or a class of its own"
    elif not _has_known_backend(forward):
        way = "is compiled by a backend of its own"
    else:
        return
    yield CompileError(
        f"{named}: {type(part).__name__}, which runs the module inside, {way}, and the compiled network would not "
        "follow that: give the module inside, its ._orig_mod, and do what else is to be computed in the forward of an "
        "nn.Module around that"
    )


def _has_known_backend(compiled: Any) -> bool:
    """Whether what torch.compile made of a function runs a backend of torch, as far as that can be told."""
    code = getattr(compiled, "__code__", None)
    cells = dict(zip(code.co_freevars, compiled.__closure__ or (), strict=True)) if code else {}
    backend: Any = getattr(cells["self"].cell_contents, "callback", None) if "self" in cells else None
    while hasattr(backend, "_torchdynamo_orig_backend"):
        backend = backend._torchdynamo_orig_backend
    backend = getattr(backend, "compiler_fn", backend)
    module = getattr(backend, "__module__", None) or "torch"
    return module.split(".")[0] in ("torch", "functorch")
