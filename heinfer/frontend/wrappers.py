"""Modules that run another one, by torch.compile or in parallel, and what they do beside it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import MethodType
from typing import Any

from torch import nn

from heinfer.errors import CompileError
from heinfer.frontend.originals import CALLS, METHODS, is_original

_PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)


def wraps(module: nn.Module) -> bool:
    """Whether a module is one that runs another, or derives from such a class."""
    return isinstance(module, _PARALLEL) or _is_compiled(module)


def ways_of_its_own(wrapper: nn.Module) -> Iterator[str]:
    """What a wrapper does beside running what is inside."""
    kind = type(wrapper)
    if isinstance(wrapper, _PARALLEL):
        base = next(x for x in _PARALLEL if isinstance(wrapper, x))
        if kind is not base:
            yield f"is a class of its own, derived from {base.__name__}"
        for name in (*CALLS, *METHODS):
            if name in vars(wrapper):
                yield f"has its {name} replaced on the instance"
            elif kind is base and not is_original(kind, base, name):
                yield f"has its {name} replaced, for all of its class"
        return
    if (kind.__module__, kind.__name__) != ("torch._dynamo.eval_frame", "OptimizedModule"):
        yield "is a class of its own, derived from torch.compile's"
    for name in CALLS:
        if name in vars(wrapper):
            yield f"has its {name} replaced on the instance"
    forward = vars(wrapper).get("forward")
    if isinstance(forward, MethodType) and forward.__self__ is wrapper:
        forward = vars(wrapper).get("_forward")  # a lazy module's, which comes after the check that it is no more
    if getattr(forward, "__globals__", None) is not vars(sys.modules["torch._dynamo.eval_frame"]):
        yield "has its forward replaced on the instance"
    elif not has_known_backend(forward):
        yield "is compiled by a backend of its own"


def wrapper_problems(path: str, wrapper: nn.Module) -> Iterator[CompileError]:
    """Name a wrapper that is not looked into, as it does more than running what is inside."""
    inside = "_orig_mod" if _is_compiled(wrapper) else "module"
    for way in ways_of_its_own(wrapper):
        yield CompileError(
            f"{path or 'the model itself'}: {type(wrapper).__name__}, which runs the module inside, {way}, and the "
            f"compiled network would not follow that: give the module inside, its .{inside}, and where more is to be "
            "computed, do it in the forward of an nn.Module around that"
        )
        return


def has_known_backend(compiled: Any) -> bool:
    """Whether what torch.compile made of a function runs a backend of torch, as far as that can be told."""
    code = getattr(compiled, "__code__", None)
    cells = dict(zip(code.co_freevars, compiled.__closure__ or (), strict=True)) if code else {}
    backend: Any = getattr(cells["self"].cell_contents, "callback", None) if "self" in cells else None
    while hasattr(backend, "_torchdynamo_orig_backend"):
        backend = backend._torchdynamo_orig_backend
    backend = getattr(backend, "compiler_fn", backend)
    module = getattr(backend, "__module__", None) or "torch"
    return module.split(".")[0] in ("torch", "functorch")


def _is_compiled(module: nn.Module) -> bool:
    loaded = sys.modules.get("torch._dynamo.eval_frame")  # slow to import
    return loaded is not None and isinstance(module, loaded.OptimizedModule)
