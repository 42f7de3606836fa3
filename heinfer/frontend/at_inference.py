"""A module as it is at inference, for a while; afterwards it is what it was."""

from __future__ import annotations

import pickle
import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx.immutable_collections import immutable_dict, immutable_list
from torch.nn.parameter import is_lazy

from heinfer.frontend.wrappers import unwrapped, wraps

_Undo = Callable[[], None]


@contextmanager
def at_inference(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the module in evaluation mode, without wrappers, on the CPU's random numbers, and without gradients.

    Training modes, parameters, gradients, buffers, attributes, hooks and random states are as before afterwards,
    whatever happens in between.
    """
    parts = list(module.modules())
    undo = [_random_states(), *(_mode(x) if isinstance(x, torch.jit.ScriptModule) else _attributes(x) for x in parts)]
    undo += [_tensor(x) for x in _tensors(parts)]
    try:
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            for part in parts:
                _without_wrappers(part)
            root = unwrapped(module)
            root.eval()
            yield root
    finally:
        for step in undo:
            step()


def _without_wrappers(part: nn.Module) -> None:
    """Also inside: it is undone with all other attributes."""
    if wraps(part) or isinstance(part, torch.jit.ScriptModule):
        return
    part._compiled_call_impl = None
    for name, child in part._modules.items():
        if child is not None:
            part._modules[name] = unwrapped(child)


def _mode(script: nn.Module) -> _Undo:
    training = script.training
    return lambda: setattr(script, "training", training)


def _attributes(part: nn.Module) -> _Undo:
    """Attributes, and what is directly in those that are containers, such as the hooks and the list of parameters."""
    attributes, before = vars(part), dict(vars(part))
    contents = [
        (value, _content(value))
        for value in before.values()
        if isinstance(value, dict | list | set | deque) and not isinstance(value, immutable_list | immutable_dict)
    ]

    def undo() -> None:
        attributes.clear()
        attributes.update(before)
        for container, content in contents:
            container.clear()
            _fill(container, content)

    return undo


def _content(container: Any) -> Any:
    return list(container.items()) if isinstance(container, dict) else list(container)


def _fill(container: Any, content: Any) -> None:
    if isinstance(container, list | deque):
        container.extend(content)
    else:
        container.update(content)


def _tensors(parts: list[nn.Module]) -> list[Tensor]:
    """Every tensor that modules hold, once; those that a forward could not change are left out."""
    found = {
        id(x): x
        for part in parts
        for values in (part._parameters.values(), part._buffers.values(), vars(part).values())
        for x in values
        if isinstance(x, Tensor) and not is_lazy(x) and is_plain(x) and x.device.type != "meta"
    }
    return list(found.values())


def is_plain(x: Tensor) -> bool:
    """Whether a tensor is the numbers that it holds, one after the other."""
    own = type(x).__torch_dispatch__ is not Tensor.__torch_dispatch__
    return not own and x.layout == torch.strided and not x.is_quantized


def _tensor(x: Tensor) -> _Undo:
    data = x.detach()  # shares the memory of x, wherever x may point later
    values = data.clone()
    requires_grad, grad = x.requires_grad, x.grad if x.is_leaf else None

    def undo() -> None:
        if not torch.equal(data, values):
            data.copy_(values)
        if x.is_leaf and (x.data_ptr() != data.data_ptr() or x.dtype != data.dtype or x.shape != data.shape):
            x.data = data
        if x.is_leaf and x.requires_grad != requires_grad:
            x.requires_grad_(requires_grad)
        if x.is_leaf and x.grad is not grad:
            x.grad = grad

    return undo


def random_states() -> tuple[object, ...]:
    """The states of the random numbers that a forward may draw, to compare."""
    numpy = pickle.dumps(np.random.get_state())  # noqa: NPY002  (the global state is the one that a forward may use)
    return random.getstate(), numpy, torch.get_rng_state().numpy().tobytes()


def _random_states() -> _Undo:
    python, numpy, pytorch = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002

    def undo() -> None:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(pytorch)

    return undo
