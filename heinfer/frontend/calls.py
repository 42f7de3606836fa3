"""Calls of ATen functions, one after the other: constants are computed, values are recorded, the rest is refused.

A graph that torch exported and one of ONNX are both such calls; what each function means stands once, in the table of
:mod:`heinfer.frontend.table`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils import _pytree as pytree

from heinfer.errors import CompileError, ShapeError, UnsupportedOperatorError
from heinfer.frontend.recorder import Recorder
from heinfer.frontend.values import Value, moved

Rule = Callable[..., Any]
"""(recorder, **arguments by the names of the function's schema) -> a value, or several."""

_NAMES = {"self": "x", "input": "x"}
"""What rules call the first argument of a function."""


@dataclass(frozen=True)
class Table:
    """What functions mean.

    Attributes:
        moves: names of functions that only move elements, or put constants in their place.
        rules: all others that have an encrypted form, by name.
        way_out: what to write instead of a function or layer that has none, nothing where that is not known.
    """

    moves: frozenset[str]
    rules: Mapping[str, Rule]
    way_out: Callable[[str], str]


OTHERWISE = (
    "use functions that move, scale, add up or multiply elements, convolutions and dense layers: docs/operators.md "
    "lists them"
)

_ROUNDED = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Where:
    """Where a call stands in what the user gave.

    Attributes:
        path: of the node of the network: a module's path, or that and the function's name.
        function: that is called.
        layer: the class of the module where the call is in one of torch's.
        line: "file.py:12", or nothing where no file of the user's is known.
    """

    path: str
    function: str
    layer: str = ""
    line: str = ""

    def error(self, text: str) -> UnsupportedOperatorError:
        return UnsupportedOperatorError(f"{self.path}: {text}{f' ({self.line})' if self.line else ''}")


class Unknown:
    """What a refused call gives where not even a shape is known."""


class Calls:
    """Takes calls, and collects what is wrong with them.

    Attributes:
        problems: of all calls so far.
    """

    def __init__(self, recorder: Recorder, table: Table) -> None:
        self.recorder = recorder
        self.table = table
        self.problems: list[CompileError] = []

    def call(
        self,
        function: OpOverload,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        where: Where,
        shapes: Any = None,
        readers: int = 1,
    ) -> Any:
        """The result of a call: constant tensors, values, or several of them; unknown where it is refused.

        Args:
            shapes: of the result, (batch, ...) or several, to go on with where the call is refused.
            readers: how many calls read the result; for several it is computed once.
        """
        arguments = bound(function, args, kwargs)
        if holds(arguments, Unknown):
            return Unknown()
        name = name_of(function)
        try:
            if not holds(arguments, Value):
                return _constant(function, arguments)
            self.recorder.name = where.path
            if name in self.table.moves:
                return _named(
                    _moves(function, pytree.tree_map_only(Value, self._placed_polynomial, dict(arguments))), where.path
                )
            result = self.by_rule(name, arguments, where)
            computed = readers > 1 and isinstance(result, Value) and not result.is_moved
            return self.recorder.again(result) if computed else _named(result, where.path)
        except ShapeError as error:
            self.problems.append(ShapeError(str(where.error(str(error)))))
        except UnsupportedOperatorError as error:
            self.problems.append(where.error(self._cause(where, str(error))))
        except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError) as error:  # of torch
            if not self.problems:  # else it may follow from them
                self.problems.append(where.error(f"{where.function} cannot be followed: {str(error).splitlines()[0]}"))
        return self._unknown(shapes)

    def by_rule(self, name: str, arguments: Mapping[str, Any], where: Where) -> Any:  # noqa: ARG002 - for who inherits
        """The result of a function that does more than move elements.

        Raises:
            CompileError: when it has no encrypted form, or not of these arguments.
        """
        rule = self.table.rules.get(name)
        if rule is None:
            raise UnsupportedOperatorError(f"has no encrypted form; {self.table.way_out(name) or OTHERWISE}")
        return rule(self.recorder, **{_NAMES.get(key, key): x for key, x in arguments.items()})

    def _cause(self, where: Where, cause: str) -> str:
        """What is wrong with the whole layer, where there is a way out for that, else with the function."""
        instead = self.table.way_out(where.layer)
        if instead:
            return f"{where.layer} has no encrypted form; {instead}"
        return f"{where.function} {cause}"

    def _placed_polynomial(self, value: Value) -> Value:
        """A polynomial is evaluated where its elements are, and its result moved."""
        return self.recorder.again(value) if value.degree > 1 else value

    def _unknown(self, shapes: Any) -> Any:
        if isinstance(shapes, torch.Size):
            return self.recorder.unknown(tuple(shapes[1:])) if shapes[:1] == (self.recorder.batch,) else Unknown()
        if isinstance(shapes, list | tuple):
            return [self._unknown(x) for x in shapes]
        return Unknown()


def _named(x: Any, name: str) -> Any:
    if isinstance(x, list):
        return [_named(y, name) for y in x]
    return replace(x, name=name) if isinstance(x, Value) else x


def name_of(function: OpOverload) -> str:
    """Without the namespace of torch's own."""
    return str(function._schema.name).removeprefix("aten::")


def bound(function: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by the names of a function's schema, with its defaults."""
    found: dict[str, Any] = {}
    for number, argument in enumerate(function._schema.arguments):
        if number < len(args) and not argument.kwarg_only:
            found[argument.name] = args[number]
        elif argument.name in kwargs:
            found[argument.name] = kwargs[argument.name]
        else:
            found[argument.name] = argument.default_value
    return found


def run(function: OpOverload, arguments: Mapping[str, Any]) -> Any:
    """A function on tensors themselves."""
    schema = function._schema.arguments
    positional = [arguments[a.name] for a in schema if not a.kwarg_only]
    return function(*positional, **{a.name: arguments[a.name] for a in schema if a.kwarg_only})


_RESHAPE = torch.ops.aten.reshape.default
_VIEWS = ("view", "_unsafe_view", "_reshape_alias")
"""Functions of how a tensor lies in memory; places and factors lie there otherwise."""


def _moves(function: OpOverload, arguments: Mapping[str, Any]) -> Any:
    """The function itself, run on the places of elements; a constant where none of them is left."""
    if name_of(function) in _VIEWS:
        if "size" not in arguments:
            raise UnsupportedOperatorError("reads the bits of numbers as those of another type: leave it out")
        function, arguments = _RESHAPE, {"self": arguments["self"], "shape": arguments["size"]}
    leaves, spec = pytree.tree_flatten(dict(arguments))
    at = [number for number, x in enumerate(leaves) if isinstance(x, Value)]

    def of(*tensors: Tensor) -> Any:
        filled = list(leaves)
        for number, x in zip(at, tensors, strict=True):
            filled[number] = x
        return run(function, pytree.tree_unflatten(filled, spec))

    values = [leaves[number] for number in at]
    example = of(*(value.constant for value in values))
    if isinstance(example, Tensor):
        return _if_any(moved(of, values))
    return [_if_any(moved(lambda *xs, i=i: of(*xs)[i], values)) for i in range(len(example))]


def _if_any(value: Value) -> Value | Tensor:
    return value if value.terms else value.constant


def _constant(function: OpOverload, arguments: Mapping[str, Any]) -> Any:
    """Computed in double precision, whatever the graph's is."""
    if function._schema.is_mutable:
        raise UnsupportedOperatorError(f"{name_of(function)} changes a constant in place: make a new one")
    if torch.Tag.nondeterministic_seeded in function.tags:
        raise UnsupportedOperatorError(
            "draws random numbers in evaluation mode, so no two answers need be the same: draw them where "
            "self.training is true"
        )
    precise = {name: require_precise(x) if isinstance(x, torch.dtype) else x for name, x in arguments.items()}
    return _doubled(run(function, precise))


def require_precise(kind: torch.dtype) -> torch.dtype:
    """Double precision for single; refuses what rounds more."""
    if kind in _ROUNDED:
        raise UnsupportedOperatorError(f"rounds to {kind}, which the compiled network would not follow: leave it out")
    return torch.float64 if kind == torch.float32 else kind


def _doubled(x: Any) -> Any:
    if isinstance(x, Tensor):
        return x.double() if x.is_floating_point() else x
    return [_doubled(y) for y in x] if isinstance(x, list | tuple) else x


def holds(x: Any, kind: type) -> bool:
    """Whether there is one of a kind in arguments."""
    if isinstance(x, Mapping):
        return any(holds(y, kind) for y in x.values())
    if isinstance(x, list | tuple):
        return any(holds(y, kind) for y in x)
    return isinstance(x, kind)
