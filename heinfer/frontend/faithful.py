"""The traced network against the module itself, run on real inputs: what tracing did not see shows here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from heinfer.errors import CompileError
from heinfer.frontend.at_inference import at_inference, random_states
from heinfer.frontend.trace import as_called
from heinfer.network.ir import Network

Array = NDArray[np.float64]

INPUTS = 32
"""At most so many of the calibration inputs are run, evenly spaced."""
AT_ONCE = 4
"""Inputs in a call: several calls tell what changes from one to the next, and bound the memory."""
ALLOWED = {torch.float32: 1e-4, torch.float64: 1e-9}
"""Share of the largest score that rounding in PyTorch may change, by the lowest precision of the weights."""


def require_same(module: nn.Module, network: Network, folded: Network, inputs: Array) -> None:
    """Refuse a network that does not compute what its module does in evaluation mode; the module stays as it is.

    Args:
        network: what was traced, whose layers are those of the module.
        folded: what is compiled, and much faster.
        inputs: (batch, *input_shape), such as the module will be given.

    Raises:
        CompileError: names the first layer that differs, or what else was seen; NaN and infinity.
    """
    with at_inference(module) as root:
        _Comparison(as_called(root), network, folded).run(inputs)


class _Comparison:
    """Runs both on the same inputs."""

    def __init__(self, root: nn.Module, network: Network, folded: Network) -> None:
        self.root, self.network, self.folded = root, network, folded
        kinds = [x.dtype for x in (*root.parameters(), *root.buffers()) if x.dtype in ALLOWED]
        self.takes = kinds[0] if kinds else torch.float32
        self.allowed = max(ALLOWED[kind] for kind in kinds or [self.takes])

    def run(self, inputs: Array) -> None:
        some = inputs[np.unique(np.linspace(0, len(inputs) - 1, min(INPUTS, len(inputs))).astype(int))]
        some = torch.tensor(some, dtype=self.takes, device="cpu").double().numpy()  # as the module will see them
        parts = [some[start : start + AT_ONCE] for start in range(0, len(some), AT_ONCE)]
        drawn = random_states()
        *results, again = [self._module(part) for part in (*parts, parts[0])]
        if random_states() != drawn:
            raise CompileError(
                "the model's forward draws random numbers in evaluation mode, so no two answers need be the same: "
                "draw them where self.training is true"
            )
        largest = max(_largest(result) for result in results)
        if np.isfinite(results[0]).all() and not _agree(again, results[0], self.allowed, largest):
            raise CompileError(
                "the model gives other scores for the same inputs from one call to the next: what its forward changes "
                "must not change its scores in evaluation mode"
            )
        with np.errstate(all="ignore"):
            expected = self.folded(some)
        for start, part, result in zip(range(0, len(some), AT_ONCE), parts, results, strict=True):
            value = expected[start : start + AT_ONCE]
            if result.shape != value.shape:
                raise CompileError(
                    f"the model returns scores of shape {result.shape} for {len(part)} inputs where its layers return "
                    f"{value.shape}: {_OTHERWISE}"
                )
            if not _agree(result, value, self.allowed, largest):
                raise CompileError(self._difference(part, result, value, largest))

    def _module(self, inputs: Array) -> Array:
        try:
            result = self.root(torch.tensor(inputs, dtype=self.takes, device="cpu"))
        except Exception as error:  # a forward may do anything
            raise CompileError(
                f"the model cannot be run on {len(inputs)} calibration inputs of type {self.takes}: {error}; "
                "it must take such a batch in evaluation mode, so that its scores can be compared"
            ) from error
        if not isinstance(result, Tensor):
            raise CompileError(f"the model returns a {type(result).__name__} where its forward returns a tensor")
        return np.array(result.detach().double().cpu().numpy())

    def _difference(self, inputs: Array, result: Array, value: Array, largest: float) -> str:
        first = self._first(inputs)
        if not (np.isfinite(result).all() and np.isfinite(value).all()):
            return (
                f"{first} gives NaN or infinity on calibration inputs: its weights or its inputs are too large for "
                f"{self.takes}; normalise them, and train again"
            )
        share = np.abs(result - value).max() / largest if largest else np.inf
        return (
            f"{first} computes something else than the layers say: on calibration inputs the model's scores differ by "
            f"{share:.1e} of the largest, where rounding in PyTorch allows for {self.allowed:g}: {_OTHERWISE}"
        )

    def _first(self, inputs: Array) -> str:
        """The first layer whose values differ, of those that are modules: functions cannot be watched."""
        seen: dict[str, list[Array]] = defaultdict(list)
        modules = dict(self.root.named_modules())
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


_OTHERWISE = (
    "look for what is done outside of its layers and forward, such as a hook, a patched method, or state that changes "
    "from call to call; if it is rounding, give module.double()"
)


def _recorder(seen: list[Array]) -> Callable[[nn.Module, object, Tensor], None]:
    def record(_: nn.Module, __: object, output: Tensor) -> None:
        seen.append(np.array(output.detach().double().cpu().numpy()))

    return record


def _largest(values: Array) -> float:
    return float(np.abs(values).max(initial=0))


def _agree(result: Array, value: Array, allowed: float, largest: float) -> bool:
    if result.shape != value.shape:
        return False
    with np.errstate(invalid="ignore"):
        difference = np.abs(result - value)
    return bool(np.isfinite(difference).all() and difference.max(initial=0) <= allowed * largest)
