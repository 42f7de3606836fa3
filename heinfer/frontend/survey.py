"""A look at a module before it is traced: at weights that cannot be read, or are not what is computed with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from heinfer.errors import CompileError, UnsupportedOperatorError
from heinfer.frontend.at_inference import is_plain
from heinfer.frontend.paths import named_modules
from heinfer.frontend.wrappers import wrapper_problems

_READ = (torch.float32, torch.float64)

_QAT = (
    "trained with simulated quantisation, which the compiled network does not have: build the network without it, "
    "load the weights into that (load_state_dict(..., strict=False)), and fine-tune; weights need no quantisation here"
)
_QUANTISED = (
    "quantised, and the compiled network computes with real numbers: give the network as it was before it was quantised"
)


@dataclass(frozen=True)
class Survey:
    """What is wrong with a module that can be said without tracing it.

    Attributes:
        unreadable: paths of the modules whose calls say nothing more, as what they are is named already.
    """

    problems: tuple[CompileError, ...]
    unreadable: tuple[str, ...]


def survey(module: nn.Module) -> Survey:
    """Look at a module and all inside it; the module is not run."""
    problems = [*_cache_problems()]
    elsewhere: dict[str, list[str]] = {}
    unreadable: list[str] = []
    inside_unreadable: set[int] = set()
    for path, part in named_modules(module):
        if id(part) in inside_unreadable:
            continue
        found = list(_unreadable(path or "the model itself", part))
        if found:
            unreadable.append(path)
            inside_unreadable.update(map(id, part.modules()))
            problems += found
            continue
        problems += wrapper_problems(path, part)
        for name, x in _tensors(path, part):
            for cause in _not_here(x):
                elsewhere.setdefault(cause, []).append(name)
    problems += [CompileError(f"{_some(names)}: {cause}") for cause, names in elsewhere.items()]
    return Survey(tuple(problems), tuple(unreadable))


def _cache_problems() -> Iterator[CompileError]:
    if parametrize._cache_enabled:
        yield CompileError(
            "all modules: torch.nn.utils.parametrize.cached() is active, so parametrised weights may be those of "
            "before: compile outside of it"
        )


def still_training(root: nn.Module) -> Iterator[CompileError]:
    """Name what stays in training mode when the model is put in evaluation mode."""
    for path, part in named_modules(root):
        if part.training:
            yield CompileError(
                f"{path or 'the model itself'}: stays in training mode when the model is put in evaluation mode "
                "by module.eval(), because a train() of its own does not pass it on: mend that"
            )


def _unreadable(named: str, part: nn.Module) -> Iterator[CompileError]:
    """Why there is no operator for a module and all inside it, where its kind or its own values say so."""
    kind, words = type(part).__name__, type(part).__module__.split(".")
    if isinstance(part, torch.jit.ScriptModule):
        yield UnsupportedOperatorError(
            f"{named}: a TorchScript module, whose layers cannot be read: put the nn.Module that it was made of there"
        )
    elif words[0] in ("torch", "torchao") and {"qat", "fake_quantize", "observer"} & set(words):
        yield UnsupportedOperatorError(f"{named}: {kind} is {_QAT}")
    elif words[0] in ("torch", "torchao") and "quantized" in words:
        yield UnsupportedOperatorError(f"{named}: {kind} is {_QUANTISED}")
    elif any(is_lazy(x) for _, x in _tensors("", part)):
        yield CompileError(
            f"{named}: {kind} has no weights yet, as no input has come by: "
            "call the module on one, and train it or load its weights"
        )
    else:
        for name, x in _tensors("", part):
            if _is_real(x) and not x.isfinite().all():
                yield CompileError(f"{named}: {_not_finite(name, x)}")


def _tensors(path: str, part: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters, and those buffers that are no counters, of a module but not of what is inside it."""
    own = [*part.named_parameters(path, recurse=False), *part.named_buffers(path, recurse=False)]
    return [
        (name, x)
        for name, x in own
        if isinstance(x, nn.Parameter) or is_lazy(x) or x.is_floating_point() or x.is_complex() or x.is_quantized
    ]


def _not_here(x: Tensor) -> Iterator[str]:
    """Why the values of a tensor cannot be read as float64 as they are, and the way out for the whole module."""
    if x.is_quantized:
        yield _QUANTISED
    elif x.layout != torch.strided:
        yield f"stored as {x.layout}: store them dense, by to_dense()"
    elif not is_plain(x):
        yield f"held as {type(x).__name__}, not as plain tensors: give the network as it was before that was made of it"
    elif x.device.type == "meta":
        yield (
            "on the device meta, so without values: make the network on the CPU, or module.to_empty(device='cpu'), and "
            "load its weights (load_state_dict(..., assign=True))"
        )
    elif x.device.type != "cpu":
        yield f"on the device {x.device}, and the compiler reads weights on the CPU: give module.cpu()"
    elif x.dtype not in _READ:
        yield (
            f"of type {x.dtype}, whose rounding the compiled network would not follow: give module.float(), which has "
            "the same weights, and check its accuracy"
            if x.is_floating_point()
            else f"of type {x.dtype}, and weights are real numbers: give a network whose are"
        )


def _is_real(x: Tensor) -> bool:
    return is_plain(x) and x.device.type == "cpu" and x.is_floating_point()


def _not_finite(name: str, x: Tensor) -> str:
    count = int((~x.isfinite()).sum())
    held = f"{name} holds NaN or infinity, in {count} of {x.numel()} places: "
    if isinstance(x, nn.Parameter):
        return f"{held}training has diverged; load weights from before, or train with a smaller learning rate"
    if name in ("running_mean", "running_var"):
        return f"{held}a training batch held such values; reset_running_stats(), and run training batches through it"
    return f"{held}load or compute it anew"


def _some(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
