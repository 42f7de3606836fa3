"""Methods as their classes define them: what is read from a class is what it computes only while they stand."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from torch import fx, nn
from torch.nn.utils import parametrize

from heinfer.errors import CompileError
from heinfer.nn import PolyActivation
from heinfer.nn.circulant import BlockDft, InverseBlockDft, SpectralConv2d

CALLS = ("__call__", "_call_impl", "_wrapped_call_impl")
"""What runs before a forward."""
METHODS = ("forward", "_conv_forward", "coefficients", "grouped_weight")
"""What decides what a layer computes."""

_ASKED_FOR = ("coefficients",)
"""What a subclass may say in a way of its own: it is read by the method, which the forward calls too."""

_OURS = (PolyActivation, BlockDft, InverseBlockDft, SpectralConv2d)
_READ = (
    nn.Conv2d,
    nn.Linear,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.AvgPool2d,
    nn.Flatten,
    nn.Identity,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
    *_OURS,
    nn.DataParallel,
    nn.parallel.DistributedDataParallel,
)
"""Classes whose forward is not followed, as it is known."""


def _method(kind: type, name: str) -> Any:
    return getattr(kind, name, None)


def _as_written(kind: type, name: str) -> bool:
    """Whether a method is of the module that defines its class, which a patch from elsewhere is not."""
    found = _method(kind, name)
    files = [vars(sys.modules[base.__module__]) for base in kind.__mro__ if base.__module__ in sys.modules]
    return found is None or any(getattr(found, "__globals__", None) is names for names in files)


_ORIGINALS = {
    kind: {name: _method(kind, name) for name in (*CALLS, *METHODS) if _as_written(kind, name)}
    for kind in (nn.Module, *_READ)
}


def global_call_problems() -> Iterator[CompileError]:
    """Name what runs instead of the calls of all modules."""
    for name in CALLS:
        if not is_original(nn.Module, nn.Module, name):
            yield CompileError(
                f"all modules: torch.nn.Module.{name} is replaced, by {_name(_method(nn.Module, name))}, which the "
                "compiled network would not follow: undo that patch"
            )


def call_problems(root: nn.Module) -> Iterator[CompileError]:
    """Name what the model's class runs instead of its forward: only that is followed."""
    for name in CALLS:
        if _method(type(root), name) is not _method(nn.Module, name) and not isinstance(root, fx.GraphModule):
            yield CompileError(
                f"the model itself: {type(root).__name__} has a {name} of its own, and only forward is followed: "
                "move what it does into forward"
            )


def layer_problems(path: str, part: nn.Module) -> Iterator[CompileError]:
    """Name what a layer computes in a way of its own, where its class alone would be read."""
    kind = next((base for base in type(part).__mro__ if base in _READ), None)
    if kind is None or not (issubclass(kind, _OURS) or fx.Tracer().is_leaf_module(part, path)):
        return  # its forward is followed
    for name in (*CALLS, *METHODS):
        if is_original(type(part), kind, name):
            continue
        written = next(base for base in type(part).__mro__ if name in vars(base))
        if name in _ASKED_FOR and not issubclass(kind, written):
            continue
        if issubclass(kind, written):
            yield CompileError(
                f"{path or 'the model itself'}: {written.__name__}.{name} is replaced for all layers of its kind, by "
                f"{_name(_method(written, name))}, which the compiled network would not follow: undo that patch"
            )
        else:
            yield CompileError(
                f"{path or 'the model itself'}: {written.__name__} has a {name} of its own, and would be read as the "
                f"{kind.__name__} that it derives from: make it an nn.Module that holds a {kind.__name__} and calls "
                f"it in its forward, which is followed{_without_parametrisation(part)}"
            )


def is_original(kind: type, base: type[nn.Module], name: str) -> bool:
    """Whether a class has a method as a base of it was written."""
    originals = _ORIGINALS[base]
    return name in originals and _method(kind, name) is originals[name]


def _without_parametrisation(part: nn.Module) -> str:
    return ", and parametrise that one" if parametrize.is_parametrized(part) else ""


def _name(method: Any) -> str:
    return getattr(method, "__qualname__", type(method).__name__)
