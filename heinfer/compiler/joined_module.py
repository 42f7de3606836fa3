"""A module of several inputs or outputs as one of a single input and output: what is imported, and compared with."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from heinfer.errors import CompileError
from heinfer.frontend.at_inference import at_inference
from heinfer.frontend.paths import INSIDE
from heinfer.layout.parts import TensorPart

Shapes = dict[str, tuple[int, ...]]

_TRIED = 2
"""Inputs on which a module is run to see what it gives: more than one, so that the axis that counts them shows."""


def as_one(
    module: object,
    parts: Sequence[TensorPart],
    inputs: NDArray[Any],
    names: object,
    *,
    may_be_unnamed: bool = False,
) -> tuple[Any, Shapes | None]:
    """A module of the concatenation of its inputs, which gives that of its outputs; itself where it is one already.

    Args:
        module: whose forward takes the parts in their order, or by their names, or their concatenation.
        parts: of its inputs.
        inputs: (batch, *shape) of the only one, or (batch, n), at least one.
        names: of its outputs, where it returns a tuple of tensors; of a mapping of tensors they are the keys.
        may_be_unnamed: whether outputs without names are numbered.

    Returns:
        The module, and the shapes of its outputs by name; None where it returns one tensor, or cannot be run.

    Raises:
        CompileError: when it returns something else, or as many outputs as there are no names for.
    """
    if not isinstance(module, nn.Module) or isinstance(module, torch.jit.ScriptModule):
        return module, None
    kinds = [x.dtype for x in (*module.parameters(), *module.buffers()) if x.is_floating_point()]
    some = torch.tensor(inputs[:_TRIED], dtype=kinds[0] if kinds else torch.get_default_dtype())
    taking = _Taking(module, parts) if _takes_parts(module, parts) else module
    try:
        with at_inference(taking) as root:
            result = root(some)
    except Exception:
        return taking, None
    if isinstance(result, Tensor):
        return taking, None
    keys = _keys(result)
    found = {key: result[key] for key in keys}
    if not found or not all(isinstance(x, Tensor) and x.dim() and len(x) == len(some) for x in found.values()):
        raise CompileError(
            f"the model returns a {type(result).__name__}: return a tensor (batch, *shape), or a tuple or a mapping of "
            "names to such"
        )
    named = [f"output{n}" for n in range(len(keys))] if may_be_unnamed else _named(result, names)
    shapes = {name: tuple(found[key].shape[1:]) or (1,) for name, key in zip(named, keys, strict=True)}
    return _Giving(taking, dict(zip(keys, shapes.values(), strict=True))), shapes


class _Taking(nn.Module):
    """Takes the concatenation (batch, n) of what a module takes."""

    def __init__(self, network: nn.Module, parts: Sequence[TensorPart]) -> None:
        super().__init__()
        self.add_module(INSIDE, network)
        self.parts = tuple(parts)
        self.by_name = {part.name for part in parts} <= set(_arguments(network))

    def forward(self, x: Tensor) -> Any:
        given = {part.name: x[:, part.elements].reshape(-1, *part.shape) for part in self.parts}
        return self.get_submodule(INSIDE)(**given) if self.by_name else self.get_submodule(INSIDE)(*given.values())


class _Giving(nn.Module):
    """Gives the concatenation (batch, n) of what a module gives."""

    def __init__(self, network: nn.Module, shapes: dict[Any, tuple[int, ...]]) -> None:
        super().__init__()
        self.add_module(INSIDE, network)
        self.sizes = {key: prod(shape) for key, shape in shapes.items()}

    def forward(self, x: Tensor) -> Tensor:
        result = self.get_submodule(INSIDE)(x)
        return torch.cat([result[key].reshape(-1, size) for key, size in self.sizes.items()], 1)


def _takes_parts(module: nn.Module, parts: Sequence[TensorPart]) -> bool:
    """Whether its forward takes each part, and not their concatenation."""
    return len(parts) > 1 and (len(_arguments(module)) > 1 or None in _arguments(module))


def _arguments(module: nn.Module) -> list[str | None]:
    """Of its forward: those that have to be given, by their names; None for any number without."""
    kinds = inspect.Parameter
    found: list[str | None] = []
    for name, argument in inspect.signature(module.forward).parameters.items():
        if argument.kind is kinds.VAR_POSITIONAL:
            found.append(None)
        elif argument.default is kinds.empty and argument.kind is not kinds.VAR_KEYWORD:
            found.append(name)
    return found


def _keys(result: object) -> list[Any]:
    if isinstance(result, Mapping):
        return list(result)
    return list(range(len(result))) if isinstance(result, tuple | list) else []


def _named(result: Any, names: object) -> list[str]:
    """Names of the outputs: keys, or as they were given."""
    own = list(result) if isinstance(result, Mapping) else list(getattr(result, "_fields", ()))
    given = list(names) if isinstance(names, Mapping | tuple | list) else []
    if own:
        if given and [str(name) for name in own] != given:
            raise CompileError(
                f"the model returns {', '.join(map(str, own))}, the outputs are named {', '.join(given)}"
            )
        return [str(name) for name in own]
    if len(given) != len(result):
        raise CompileError(
            f"the model returns {len(result)} tensors, and {len(given)} outputs are named: name each, such as "
            f"outputs=({', '.join(repr(f'output{number}') for number in range(len(result)))})"
        )
    return given
