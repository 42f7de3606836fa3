"""Random torch networks of the whole operator set, by seed: ``program(17)`` is always the same one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from drawn import Draw, Function, Maker
from random_layers import LAYERS, PRODUCTS
from random_moves import MOVES
from torch import Tensor, nn

KINDS: dict[str, Maker] = MOVES | LAYERS | PRODUCTS
SHAPES: tuple[tuple[int, ...], ...] = (
    (2, 4, 5),
    (3, 6, 4),
    (4, 4, 4),
    (1, 7, 5),
    (4, 6),
    (2, 9),
    (12,),
    (5,),
    (2, 3, 4, 3),
)
RANGES = ((-1.0, 1.0), (-1.0, 1.0), (0.0, 1.0), (0.0, 4000.0), (-1e-3, 1e-3))
_SHAPED = {4: (4, 4, 4), 3: (4, 6), 2: (6,), 5: (2, 3, 4, 3)}
_MOST = 300
"""Elements of a tensor."""


class Step(nn.Module):
    """A function or module."""

    def __init__(self, kind: str, function: Function) -> None:
        super().__init__()
        self.kind = kind
        if isinstance(function, nn.Module):
            self.layer = function
        self.function = None if isinstance(function, nn.Module) else function

    def forward(self, x: Tensor) -> Any:
        return self.layer(x) if self.function is None else self.function(x)

    def extra_repr(self) -> str:
        return self.kind


class Joined(nn.Module):
    """Two branches of one tensor, and what is made of both."""

    def __init__(self, kind: str, one: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.kind, self.one, self.other = kind, one, other

    def forward(self, x: Tensor) -> Any:
        a, b = self.one(x), self.other(x)
        match self.kind:
            case "cat":
                return torch.cat([a, b], 1)
            case "excite":
                return (
                    a * b.mean(tuple(range(2, b.dim())), keepdim=True) if b.dim() > 2 else a * b.mean(1, keepdim=True)
                )
            case "product":
                return a * b
        return a + b

    def extra_repr(self) -> str:
        return self.kind


@dataclass(frozen=True)
class Program:
    """A network in float64 and evaluation mode, and the range of its inputs.

    Attributes:
        example: (8, *shape) inputs.
    """

    seed: int
    module: nn.Module
    low: float
    high: float
    example: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.example.shape[1:])

    def inputs(self, count: int, seed: int = 1) -> Tensor:
        made = torch.Generator().manual_seed(seed)
        return torch.rand(count, *self.shape, generator=made, dtype=torch.float64) * (self.high - self.low) + self.low


class _Growing:
    """A network under construction, and what it makes of the example."""

    def __init__(self, seed: int, products: int) -> None:
        self.d = Draw(seed)
        self.left = products

    def step(self, x: Tensor, kinds: Sequence[str]) -> tuple[Step, Tensor] | None:
        """One of some kinds that fits; None where none is found soon."""
        for _ in range(20):
            kind = self.d.one(kinds)
            if kind in PRODUCTS and not self.left:
                continue
            found = self._tried(kind, x)
            if found is not None:
                self.left -= kind in PRODUCTS
                return found
        return None

    def _tried(self, kind: str, x: Tensor) -> tuple[Step, Tensor] | None:
        try:
            function = KINDS[kind](self.d, x)
            if function is None:
                return None
            step = Step(kind, function).double().eval()
            y = _run(step, x)
        except (RuntimeError, IndexError, ValueError):  # does not fit a tensor of this shape
            return None
        return None if y is None else (step, y)

    def steps(self, x: Tensor, count: int, kinds: Sequence[str]) -> tuple[list[nn.Module], Tensor]:
        found: list[nn.Module] = []
        for _ in range(count):
            step = self.step(x, kinds)
            if step is not None:
                found.append(step[0])
                x = step[1]
            if x.abs().max() > 100 or x.std() < 1e-2:
                step = self.step(x, ["batch_norm"])
                if step is not None:
                    found.append(step[0])
                    x = step[1]
        return found, x

    def block(self, x: Tensor) -> tuple[nn.Module, Tensor] | None:
        """Two branches that fit together."""
        kind = self.d.one(["sum", "product", "excite", "cat"])
        if kind in ("product", "excite"):
            if not self.left:
                return None
            self.left -= 1
        branches = [nn.Sequential(*self.steps(x, self.d.number(0, 2), list(KINDS))[0]) for _ in range(2)]
        made = Joined(kind, *branches).double().eval()
        try:
            y = _run(made, x)
        except RuntimeError:  # the branches do not fit together
            return None
        return None if y is None else (made, y)


def _run(module: nn.Module, x: Tensor) -> Tensor | None:
    """What a module makes of it; None where that is large, far from one, or not of each input by itself."""
    with torch.no_grad():
        y: Tensor = module(x)
        if not (1 <= prod(y.shape[1:]) <= _MOST and 2 <= y.dim() <= 6 and len(y) == len(x) and y.isfinite().all()):
            return None
        largest = y.abs().max()
        follows = (y - y[:1]).abs().max() > 1e-6 * largest
        alone = module(x[:3])
        fits = 1e-9 < largest < 1e9 and follows and alone.shape == y[:3].shape
        return y if fits and (alone - y[:3]).abs().max() < 1e-9 * largest else None


def program(seed: int, *, steps: int = 6, products: int = 3, first: str | None = None) -> Program:
    """A network of about so many steps, and so many of them that take levels.

    Args:
        first: a kind of step to begin with; by default that of the seed's turn, so that 200 seeds have all.
    """
    growing = _Growing(seed, products)
    d = growing.d
    kind = first or list(KINDS)[seed % len(KINDS)]
    low, high = d.one(RANGES)
    for _ in range(60):
        shape = d.one(SHAPES)
        example = torch.tensor(d.rng.uniform(low, high, (8, *shape)))
        begun = growing.steps(example, d.number(0, 1), ["batch_norm", "linear", "mul constant", "permute"])
        made = growing.step(begun[1], [kind])
        if made is not None:
            break
    else:
        raise AssertionError(f"{kind} fits no shape")
    parts, x = [*begun[0], made[0]], made[1]
    for _ in range(d.number(1, steps)):
        block = growing.block(x) if d.yes(0.25) else None
        if block is not None:
            parts.append(block[0])
            x = block[1]
            continue
        more, x = growing.steps(x, 1, list(KINDS))
        parts += more
    if d.yes() and x.dim() > 2:
        parts.append(nn.Flatten())
        parts.append(d.weighted(nn.Linear(prod(x.shape[1:]), d.number(1, 5))))
    return Program(seed, nn.Sequential(*parts).double().eval(), low, high, example)
