"""The traced network against the module itself, run on real inputs: what tracing did not see shows here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from heinfer.errors import CompileError
from heinfer.frontend.at_inference import at_inference, random_states
from heinfer.frontend.paths import named_modules
from heinfer.frontend.probes import probes
from heinfer.network.ir import Network

Array = NDArray[np.float64]

INPUTS = 256
"""At most so many of the calibration inputs are run, evenly spaced,"""
FEWER = 32
"""and fewer where they are large, to bound the time: no more than so many,"""
NUMBERS = 400_000
"""if more hold more than so many numbers."""
AT_ONCE = 32
"""Inputs in a call: several calls tell what changes from one to the next, and bound the memory."""
ALLOWED = {torch.float32: 1e-4, torch.float64: 1e-9}
"""Share of the largest score that rounding in PyTorch may change, by the lowest precision of the weights."""
ROUNDED = 1e-5
"""Share of the largest score that may differ besides: weights are computed in float32, whatever the run is in."""
VARYING = 1e-3
"""Share that may differ of how far a score goes from one input to the next: what is constant hides nothing."""
FAR = 100
"""How much more may differ on probes: polynomials of inputs that no training saw grow, and rounding with them."""


def require_same(module: nn.Module, network: Network, folded: Network, inputs: Array, low: float, high: float) -> None:
    """Refuse a network that does not compute what its module does in evaluation mode; the module stays as it is.

    Args:
        network: what was traced, whose layers are those of the module.
        folded: what is compiled, and much faster.
        inputs: (batch, *input_shape), such as the module will be given.
        low, high: between which it may be given any other.

    Raises:
        CompileError: names the first layer that differs, or what else was seen; NaN and infinity.
    """
    with at_inference(module) as root:
        _Comparison(root, network, folded).run(inputs, low, high)


@dataclass(frozen=True)
class _Group:
    """Inputs that are compared together, in the parts that are run at once."""

    name: str
    parts: list[Array]
    is_probe: bool

    @property
    def allowed(self) -> float:
        return FAR if self.is_probe else 1


class _Comparison:
    """Runs both on the same inputs."""

    def __init__(self, root: nn.Module, network: Network, folded: Network) -> None:
        self.root, self.network, self.folded = root, network, folded
        kinds = [x.dtype for x in (*root.parameters(), *root.buffers()) if x.dtype in ALLOWED]
        self.takes = kinds[0] if kinds else torch.float32
        self.allowed = max(ALLOWED[kind] for kind in kinds or [self.takes])
        self.precision = torch.float64 if self.allowed == ALLOWED[torch.float64] else torch.float32

    def run(self, inputs: Array, low: float, high: float) -> None:
        most = min(INPUTS, len(inputs), max(FEWER, NUMBERS // max(1, inputs[0].size)))
        some = inputs[np.unique(np.linspace(0, len(inputs) - 1, most).astype(int))]
        groups = [_Group("calibration inputs", [self._seen(some[:1]), *self._parts(some[1:])], is_probe=False)]
        flat, *others = probes(some, low, high)
        groups.append(_Group(_PROBES, [self._seen(x[None]) for x in flat], is_probe=True))
        groups += [_Group(_PROBES, self._parts(other), is_probe=True) for other in others]
        results = self._twice(groups)
        values = [np.concatenate([self._network(part) for part in group.parts]) for group in groups]
        for group, result, value in zip(groups, results, values, strict=True):
            self._require_near(group, result, value)
        if self.precision == torch.float32:
            results = self._doubled(groups) or results
        for group, result, value in zip(groups, results, values, strict=True):
            self._require_nearer(group, np.concatenate(result), value)

    def _seen(self, inputs: Array) -> Array:
        """Inputs as the module will see them."""
        return np.array(torch.tensor(inputs, dtype=self.takes, device="cpu").double().numpy())

    def _parts(self, inputs: Array) -> list[Array]:
        return [self._seen(inputs[start : start + AT_ONCE]) for start in range(0, len(inputs), AT_ONCE)]

    def _twice(self, groups: list[_Group]) -> list[list[Array]]:
        """The scores of all parts; all but whole parts of calibration inputs are run twice."""
        drawn = random_states()
        results = [[self._module(part) for part in group.parts] for group in groups]
        again = [
            [self._module(part) for part in (group.parts if group.is_probe else group.parts[:2])] for group in groups
        ]
        if random_states() != drawn:
            raise CompileError(
                "the model's forward draws random numbers in evaluation mode, so no two answers need be the same: "
                "draw them where self.training is true"
            )
        for group, first, second in zip(groups, results, again, strict=True):
            largest = max(_largest(x[np.isfinite(x)]) for x in first)
            for one, two in zip(first, second, strict=False):
                if np.isfinite(one).all() and not _agree(two, one, group.allowed * self.allowed, largest):
                    raise CompileError(
                        f"the model gives other scores for the same inputs, {group.name}, from one call to the next: "
                        "what its forward changes must not change its scores in evaluation mode"
                    )
        return results

    def _network(self, inputs: Array) -> Array:
        with np.errstate(all="ignore"):
            return self.folded(inputs)

    def _require_near(self, group: _Group, results: list[Array], values: Array) -> None:
        """Rounding may change a share of the largest score."""
        largest = max(_largest(x[np.isfinite(x)]) if group.is_probe else _largest(x) for x in results)
        start = 0
        for part, result in zip(group.parts, results, strict=True):
            value = values[start : start + len(part)]
            start += len(part)
            if result.shape != value.shape:
                raise CompileError(
                    f"the model returns scores of shape {result.shape} for {len(part)} inputs where its layers return "
                    f"{value.shape}: {_OTHERWISE}"
                )
            rows = _finite(result) if group.is_probe else np.full(len(part), fill_value=True)
            if rows.any() and not _agree(result[rows], value[rows], group.allowed * self.allowed, largest):
                raise CompileError(self._difference(group, part[rows], result[rows], value[rows], largest))

    def _doubled(self, groups: list[_Group]) -> list[list[Array]] | None:
        """The scores in double precision, which rounds much less; None for a forward that takes single alone."""
        before = self.takes
        for parameter in self.root.parameters():
            parameter.grad = None  # as it would be converted
        try:
            self.root.double()
            self.takes = torch.float64
            results = [[self._module(part) for part in group.parts] for group in groups]
        except Exception:  # a forward may do anything
            self.root.to(before)
            self.takes = before
            return None
        self.precision = torch.float64
        return results

    def _require_nearer(self, group: _Group, result: Array, value: Array) -> None:
        """What scores have in common, or what one alone is, must not hide how they go from one input to the next."""
        rows = _finite(result) & _finite(value) if group.is_probe else np.full(len(result), fill_value=True)
        if not rows.any():
            return
        inputs = np.concatenate(group.parts)[rows]
        result, value = result[rows], value[rows]
        varying = group.allowed * VARYING * float(np.ptp(result, axis=0).max(initial=0))
        rounded = group.allowed * (ROUNDED if varying else ALLOWED[torch.float32])  # all the same tells little
        flat, other = result.reshape(len(result), -1), value.reshape(len(value), -1)
        each = np.abs(flat).max(axis=0)  # one score that is large must not hide the others
        allowed = varying + rounded * np.maximum(each, np.median(each))
        differs = (np.abs(flat - other) > allowed).any(axis=1)
        if flat.shape[1] > 1:
            two = np.sort(flat, axis=1)[:, -2:]
            best = np.abs(two).max(axis=1)
            size = np.minimum(np.ptp(flat, axis=1), best)  # without what all share, and without what is never chosen
            unsure = varying + rounded * size + _UNITS * _eps(self.precision) * best
            differs |= (flat.argmax(axis=1) != other.argmax(axis=1)) & (two[:, 1] - two[:, 0] > unsure)
        if differs.any():
            largest = _largest(result)
            raise CompileError(self._difference(group, inputs[differs], result[differs], value[differs], largest))

    def _module(self, inputs: Array) -> Array:
        try:
            result = self.root(torch.tensor(inputs, dtype=self.takes, device="cpu"))
        except Exception as error:  # a forward may do anything
            raise CompileError(
                f"the model cannot be run on {len(inputs)} inputs of type {self.takes}: {error}; "
                "it must take such a batch in evaluation mode, so that its scores can be compared"
            ) from error
        if not isinstance(result, Tensor):
            raise CompileError(f"the model returns a {type(result).__name__} where its forward returns a tensor")
        return np.array(result.detach().double().cpu().numpy())

    def _difference(self, group: _Group, inputs: Array, result: Array, value: Array, largest: float) -> str:
        first = self._first(inputs)
        if not (np.isfinite(result).all() and np.isfinite(value).all()):
            return (
                f"{first} gives NaN or infinity on {group.name}: its weights or its inputs are too large for "
                f"{self.takes}; normalise them, and train again"
            )
        share = np.abs(result - value).max() / largest if largest else np.inf
        return (
            f"{first} computes something else than the layers say: on {group.name} the model's scores differ by "
            f"{share:.1e} of the largest, which rounding in PyTorch does not explain: {_OTHERWISE}"
        )

    def _first(self, inputs: Array) -> str:
        """The first layer whose values differ, of those that are modules: functions cannot be watched."""
        seen: dict[str, list[Array]] = defaultdict(list)
        modules = dict(named_modules(self.root))
        names = {node.name for node in self.network.nodes} & set(modules)
        handles = [modules[name].register_forward_hook(_recorder(seen[name])) for name in names]
        self._module(inputs)
        for handle in handles:
            handle.remove()
        with np.errstate(all="ignore"):
            for node, value in zip(self.network.nodes, list(self.network.values(inputs))[1:], strict=True):
                if node.name not in names:
                    continue
                if not seen[node.name]:
                    return f"{node.name} is not always called: the model"
                watched = seen[node.name].pop(0)
                if not _agree(watched, value, self.allowed, _largest(watched)):
                    return f"{node.name}"
        return "the model itself"


_PROBES = "inputs made up within the range of the preprocessing"
_UNITS = 1e3
"""Of rounding, that the two best scores must be apart to be told apart."""
_OTHERWISE = (
    "look for what is done outside of its layers and forward, such as a hook, a patched method, or state that changes "
    "from call to call; if it is rounding, give module.double()"
)


def _recorder(seen: list[Array]) -> Callable[[nn.Module, object, Tensor], None]:
    def record(_: nn.Module, __: object, output: Tensor) -> None:
        seen.append(np.array(output.detach().double().cpu().numpy()))

    return record


def _eps(kind: torch.dtype) -> float:
    return float(torch.finfo(kind).eps)


def _finite(values: Array) -> NDArray[np.bool_]:
    """For each input, whether all its scores are numbers."""
    return np.array(np.isfinite(values.reshape(len(values), -1)).all(axis=1))


def _largest(values: Array) -> float:
    return float(np.abs(values).max(initial=0))


def _agree(result: Array, value: Array, allowed: float, largest: float) -> bool:
    if result.shape != value.shape:
        return False
    with np.errstate(invalid="ignore"):
        difference = np.abs(result - value)
    return bool(np.isfinite(difference).all() and difference.max(initial=0) <= allowed * largest)
