"""What a model would be once its activations are polynomials: for a look at it before any training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from torch._ops import OpOverload

from heinfer.brief import brief_repr
from heinfer.errors import CompileError
from heinfer.frontend.calls import Calls, Where
from heinfer.frontend.elementwise import same
from heinfer.frontend.exported import Program
from heinfer.frontend.recorder import Recorder
from heinfer.frontend.resampling import average_pool
from heinfer.frontend.table import OPERATORS
from heinfer.frontend.trace import followed, module_of, network_of
from heinfer.frontend.values import Value
from heinfer.network.ir import Network
from heinfer.network.operators import Polynomial


class Verdict(StrEnum):
    """Of a call."""

    AS_IS = "as is"
    CHANGES = "changes"
    CANNOT = "cannot"


@dataclass(frozen=True)
class CallCheck:
    """What becomes of a call.

    Attributes:
        path: of its module, or that and the function's name.
        function: that is called.
        line: of the user's source, or nothing.
        text: what it becomes, or why it cannot be and what to do.
    """

    path: str
    function: str
    line: str
    verdict: Verdict
    text: str


@dataclass(frozen=True, eq=False)
class Assumed:
    """A model looked at as it would be.

    Attributes:
        calls: in order; those that only move elements are left out.
        problems: of the model as a whole.
        network: as it would be, None where something cannot be.
    """

    calls: tuple[CallCheck, ...]
    problems: tuple[str, ...]
    network: Network | None

    __repr__ = brief_repr

    def _about(self) -> str:
        return f"{len(self.calls)} calls: {self.verdict}"

    @property
    def verdict(self) -> Verdict:
        found = {call.verdict for call in self.calls}
        if self.problems or Verdict.CANNOT in found:
            return Verdict.CANNOT
        return Verdict.CHANGES if Verdict.CHANGES in found else Verdict.AS_IS


_POLYNOMIAL = "a polynomial that is fitted: of degree 2, two levels with the layer before it"
_ACTIVATIONS = frozenset(
    """relu relu6 leaky_relu prelu elu selu celu gelu silu mish tanh sigmoid hardsigmoid hardswish hardtanh softplus
    log_sigmoid rrelu clamp clamp_min""".split()  # noqa: SIM905 - as a list it is twenty lines
)
_POOLS = {f"max_pool{n}d": n for n in (1, 2, 3)}
_LEFT_OFF = frozenset(("softmax", "log_softmax"))


def assume(model: object, input_shape: tuple[int, ...]) -> Assumed:
    """Look at every call of a model, and at the network that it would be; it is not run.

    Raises:
        CompileError: when it is no model, or its forward cannot be followed.
    """
    calls, results, found = followed(module_of(model), input_shape, _Assuming)
    said = {call.text for call in calls.checks}
    problems = [text for text in map(str, found) if text not in said]
    network = None
    if not problems and not any(call.verdict is Verdict.CANNOT for call in calls.checks):
        try:
            network = network_of(calls.recorder, results)
        except CompileError as error:
            problems.append(str(error))
    return Assumed(tuple(calls.checks), tuple(problems), network)


class _Assuming(Calls):
    """Takes activations for polynomials, and max pools for average pools; says so."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__(recorder, OPERATORS)
        self.checks: list[CallCheck] = []

    def call(
        self,
        function: OpOverload,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        where: Where,
        shapes: Any = None,
        readers: int = 1,
    ) -> Any:
        before = len(self.problems)
        result = super().call(function, args, kwargs, where, shapes, readers)
        for problem in self.problems[before:]:
            self._say(where, Verdict.CANNOT, str(problem))
        return result

    def by_rule(self, name: str, arguments: Mapping[str, Any], where: Where) -> Any:
        """What a polynomial or an average gives in the place of an activation or a maximum."""
        changed = self._changed(name, arguments, where)
        if changed is not None:
            return changed
        result = super().by_rule(name, arguments, where)
        self._say(where, Verdict.AS_IS, "")
        return result

    def _changed(self, name: str, arguments: Mapping[str, Any], where: Where) -> Value | None:
        x = arguments.get("self", arguments.get("input"))
        if not isinstance(x, Value):
            return None
        if name in _ACTIVATIONS:
            position, _ = self.recorder.placed(x)
            self._say(where, Verdict.CHANGES, _POLYNOMIAL)
            return self.recorder.add(Polynomial(np.full(1, 0.25), np.full(1, 0.5), np.full(1, 0.125)), [position])
        if name in _POOLS:
            self._say(where, Verdict.CHANGES, "an average pool of the same windows")
            options = {key: arguments[key] for key in ("kernel_size", "stride", "padding", "ceil_mode")}
            return average_pool(self.recorder, x, **options, count_include_pad=False, along=_POOLS[name])
        if name in _LEFT_OFF:
            self._say(where, Verdict.CHANGES, "nothing: the largest score stays the largest")
            return same(self.recorder, x)
        return None

    def _say(self, where: Where, verdict: Verdict, text: str) -> None:
        function = where.layer if where.layer and not where.layer.startswith("_") else where.function
        self.checks.append(CallCheck(where.path, function, where.line, verdict, text))


def example_shape(model: object) -> tuple[int, ...] | None:
    """Of one input, where a file or program says it."""
    module = module_of(model)
    if isinstance(module, Program):
        held = module.program.graph_signature.user_inputs
        shapes = [x.meta["val"].shape for x in module.program.graph.nodes if x.op == "placeholder" and x.name in held]
        sizes = list(shapes[0][1:]) if len(shapes) == 1 else []
    else:
        sizes = list(getattr(module, "input_sizes", []))
    return tuple(sizes) if sizes and all(isinstance(n, int) and n > 0 for n in sizes) else None
