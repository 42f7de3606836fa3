"""What changes a module from outside its forward, which tracing does not see: hooks and patches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import fx, nn
from torch.nn.modules import module as registry
from torch.nn.utils import prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from heinfer.errors import CompileError
from heinfer.frontend.at_inference import is_wrapper

_PATCHED = ("forward", "_call_impl", "_wrapped_call_impl", "_conv_forward")
"""Methods that decide what a module computes."""


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
    if is_wrapper(part):
        return
    for method in _PATCHED:
        if method in vars(part):
            yield CompileError(
                f"{named}: its {method} is replaced on the instance, by {_name(vars(part)[method])}, which the "
                f"compiled network would not follow: del {there}.{method}, or make it the forward of a class"
            )


def call_problems(root: nn.Module) -> Iterator[CompileError]:
    """Name a ``__call__`` of the model's class: only its forward is followed."""
    if type(root).__call__ is not nn.Module.__call__ and not isinstance(root, fx.GraphModule):
        yield CompileError(
            f"the model itself: {type(root).__name__} has a __call__ of its own, and only forward is followed: "
            "move what it does into forward"
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
