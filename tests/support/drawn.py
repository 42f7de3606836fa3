"""What random programs are drawn with: numbers, sizes, and weights of odd sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

T = TypeVar("T")
Function = Callable[[Tensor], Any]
Maker = Callable[["Draw", Tensor], Function | None]
"""(draw, example (batch, *shape)) -> a function or module of such a tensor; None where there is none."""


class Held(nn.Module):
    """A function of a tensor and of parameters."""

    def __init__(self, function: Callable[..., Tensor], *held: Tensor | nn.Module) -> None:
        super().__init__()
        self.function: Any = function
        self.modules_held = nn.ModuleList(x for x in held if isinstance(x, nn.Module))
        self.tensors_held = nn.ParameterList(x for x in held if isinstance(x, Tensor))

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.function(x, *self.tensors_held, *self.modules_held)
        return made


class Draw:
    """Draws from a seed."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.scale = 1.0

    def number(self, low: int, high: int) -> int:
        """low to high, both among them."""
        return int(self.rng.integers(low, high + 1))

    def one(self, choices: Sequence[T]) -> T:
        return choices[self.number(0, len(choices) - 1)]

    def yes(self, share: float = 0.5) -> bool:
        return bool(self.rng.random() < share)

    def divisor(self, n: int) -> int:
        return self.one([k for k in range(1, n + 1) if n % k == 0])

    def sizes(self, whole: int, axes: int) -> list[int]:
        """Of so many axes that hold so many elements."""
        found: list[int] = []
        for _ in range(axes - 1):
            found.append(self.divisor(whole // prod(found)))
        return [*found, whole // prod(found)]

    def axis(self, x: Tensor, least: int = 1) -> int:
        """One that is not the batch's, of so many places at least; an IndexError where there is none."""
        found = [a for a in range(1, x.dim()) if x.shape[a] >= least]
        if not found:
            raise IndexError("no such axis")
        return self.one(found)

    def places(self, n: int, count: int | None = None) -> Tensor:
        return torch.tensor(self.rng.integers(0, n, self.number(1, n + 2) if count is None else count))

    def tensor(self, *shape: int) -> Tensor:
        return torch.tensor(self.rng.normal(size=shape))

    def weights(self, *shape: int) -> Tensor:
        """Of a size that keeps values near one, or much smaller or larger; some rows may be zero."""
        found = self.tensor(*shape) / np.sqrt(max(1, prod(shape[1:])))
        if self.yes(0.2) and shape[0] > 1:
            found[self.number(0, shape[0] - 1)] = 0
        scaled: Tensor = found * self.one([1.0, 1.0, 1.0, 1.0, 1e-3, 1e3, 1e-6, 1e6])
        return scaled

    def weighted(self, module: nn.Module) -> nn.Module:
        """A module with weights of that kind."""
        module.double()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_(self.weights(*parameter.shape) if parameter.dim() else self.weights(1)[0])
        return module

    def normalising(self, module: Any, x: Tensor) -> nn.Module:
        """A normalisation of what it reads, as if it were trained on it, or almost; some channels may be left out."""
        module.double()
        axes = [a for a in range(x.dim()) if a != 1]
        with torch.no_grad():
            module.running_mean.copy_(x.mean(axes) + 0.1 * self.tensor(x.shape[1]) * x.std())
            module.running_var.copy_(x.var(axes) * torch.tensor(self.rng.uniform(0.5, 2, x.shape[1])))
            if module.affine:
                module.weight.copy_(1 + 0.2 * self.tensor(x.shape[1]))
                module.bias.copy_(0.5 * self.tensor(x.shape[1]))
                if self.yes(0.2):
                    module.weight[self.number(0, x.shape[1] - 1)] = 0
        made: nn.Module = module.eval()
        return made
