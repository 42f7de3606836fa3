"""What changes a module from outside its forward, which tracing does not see: hooks and patches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.nn.modules import module as registry
from torch.nn.utils import prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from heinfer.errors import CompileError
from heinfer.frontend.originals import CALLS, METHODS
from heinfer.frontend.wrappers import has_known_backend, wraps

_PATCHED = (*CALLS[1:], *METHODS)
"""Methods that decide what a module computes, where an instance has one of its own."""


def global_hook_problems() -> Iterator[CompileError]:
    """Name the hooks of all modules."""
    for hook in (*registry._global_forward_pre_hooks.values(), *registry._global_forward_hooks.values()):
        yield CompileError(
            f"all modules: the global hook {_name(hook)} runs at every call, and the compiled network has no hooks: "
            "remove it, by handle.remove() of the handle that registering it returned"
        )


def hook_problems(path: str, part: nn.Module) -> Iterator[CompileError]:
    """Name the hooks and patches of one module."""
    named, there = path or "the model itself", f"module.get_submodule({path!r})" if path else "module"
    for hook in (*part._forward_pre_hooks.values(), *part._forward_hooks.values()):
        yield CompileError(
            f"{named}: the hook {_name(hook)} runs at every call, and the compiled network has no hooks: "
            f"{_way_out(hook, there)}"
        )
    if wraps(part):
        return
    for method in _PATCHED:
        if method in vars(part):
            yield CompileError(
                f"{named}: its {method} is replaced on the instance, by {_name(vars(part)[method])}, which the "
                f"compiled network would not follow: del {there}.{method}, or make it the forward of a class"
            )
    if part._compiled_call_impl is not None and not has_known_backend(part._compiled_call_impl):
        yield CompileError(
            f"{named}: it is compiled in place by a backend of its own, which the compiled network would not follow: "
            f"{there}._compiled_call_impl = None undoes that"
        )


def _way_out(hook: Any, there: str) -> str:
    if isinstance(hook, WeightNorm):
        return (
            f"torch.nn.utils.remove_weight_norm({there}, {hook.name!r}) leaves the weight that it computes; "
            "torch.nn.utils.parametrizations.weight_norm needs no hook"
        )
    if isinstance(hook, SpectralNorm):
        return (
            f"torch.nn.utils.remove_spectral_norm({there}, {hook.name!r}) leaves the weight that it computes; "
            "torch.nn.utils.parametrizations.spectral_norm needs no hook"
        )
    if isinstance(hook, prune.BasePruningMethod):
        return f"torch.nn.utils.prune.remove({there}, {hook._tensor_name!r}) leaves the pruned weight"
    return (
        "remove it, by handle.remove() of the handle that registering it returned, and have forward do what it does; "
        "where it computes a weight, call the module once before, and store that weight"
    )


def _name(hook: Any) -> str:
    hook = getattr(hook, "func", hook)  # of functools.partial
    return getattr(hook, "__qualname__", type(hook).__name__)
