"""Polynomials fitted to what an activation sees: least squares in the Chebyshev basis, weighted by density."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.polynomial.chebyshev import chebval, chebvander
from numpy.typing import NDArray
from torch import Tensor, nn

from heinfer.nn.chebyshev import ChebyshevActivation
from heinfer.planner.series import depth_of

Array = NDArray[np.float64]

WIDER = 1.1
"""An interval is so much wider than what data shows."""
_EVERYWHERE = 0.0005
"""Share of the weight that lies evenly on the interval, so that the polynomial stays near where data is rare."""
_POINTS = 512
_MOST = 200_000
"""Values of a layer that are kept."""


class Seen:
    """Values that an activation has seen: their range, some of them, and mean and variance of each channel."""

    def __init__(self, seed: int = 0) -> None:
        self.low, self.high = np.inf, -np.inf
        self.channels = 0
        self._parts: list[Array] = []
        self._rng = np.random.default_rng(seed)
        self.axes, self.dtype = 0, torch.get_default_dtype()
        self._count, self._sum, self._squares = 0, torch.zeros(()), torch.zeros(())

    def __call__(self, x: Tensor) -> None:
        self.axes, self.dtype = x.dim(), x.dtype
        rows = x.detach().double().transpose(0, 1).flatten(1)
        self._count += rows.shape[1]
        self._sum = self._sum + rows.sum(1)
        self._squares = self._squares + rows.square().sum(1)
        values = x.detach().double().reshape(-1).numpy()
        self.channels = int(x.shape[1])
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        self._parts.append(values if values.size <= _MOST // 8 else self._rng.choice(values, _MOST // 8))
        if len(self._parts) > 16:
            self._parts = [self._rng.choice(self.values, _MOST // 2)]

    @property
    def values(self) -> Array:
        return np.concatenate(self._parts)

    def norm(self) -> nn.Module:
        """Batch normalisation that changes nothing as long as the statistics are what was seen."""
        kind = (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[self.axes - 2]
        made = kind(self.channels, dtype=self.dtype)
        mean = self._sum / self._count
        variance = (self._squares / self._count - mean.square()).clamp(min=0)
        assert made.running_mean is not None
        assert made.running_var is not None
        with torch.no_grad():
            made.running_mean.copy_(mean)
            made.running_var.copy_(variance)
            made.weight.copy_((variance + made.eps).sqrt())
            made.bias.copy_(mean)
        return made


@dataclass(frozen=True, eq=False)
class Fit:
    """A polynomial on an interval.

    Attributes:
        coefficients: (degree + 1,) of Chebyshev polynomials of (x - center) / radius.
        error: root mean square of what it misses on what was seen, in parts of that of the activation.
        worst: the most that it misses anywhere in the interval.
    """

    coefficients: Array
    center: float
    radius: float
    error: float
    worst: float

    @property
    def degree(self) -> int:
        return self.coefficients.size - 1

    def module(self, channels: int) -> ChebyshevActivation:
        """The activation, with coefficients for each channel that may be tuned."""
        kind = torch.float64
        rows = torch.tensor(self.coefficients, dtype=kind).expand(channels, -1)
        return ChebyshevActivation(
            rows, torch.tensor([self.center], dtype=kind), torch.tensor([self.radius], dtype=kind)
        )


def levels_of(degree: int) -> int:
    """That a polynomial takes: a quadratic one, by completing the square."""
    return 1 if degree <= 2 else depth_of(degree)


def fit(
    activation: Callable[[Tensor], Tensor], seen: Seen, degree: int, exact_on: tuple[float, float] | None = None
) -> Fit:
    """The polynomial of a degree that is nearest to an activation where its values are.

    Args:
        exact_on: an interval where the activation is a polynomial; what was seen is given no more room than that.
    """
    center, radius = (seen.high + seen.low) / 2, max(WIDER * (seen.high - seen.low) / 2, 1e-6)
    if exact_on is not None and exact_on[0] <= seen.low and seen.high <= exact_on[1]:
        low, high = max(center - radius, exact_on[0]), min(center + radius, exact_on[1])
        center, radius = (high + low) / 2, max((high - low) / 2, 1e-6)
    grid = np.linspace(-1, 1, _POINTS)
    t = np.concatenate([(seen.values - center) / radius, grid])
    weight = np.full(t.size, 1 / (t.size - _POINTS))
    weight[-_POINTS:] = _EVERYWHERE / _POINTS
    with torch.no_grad():
        y = activation(torch.tensor(center + radius * t, dtype=torch.get_default_dtype())).double().numpy()
    root = np.sqrt(weight)
    coefficients = np.linalg.lstsq(chebvander(t, degree) * root[:, None], y * root, rcond=None)[0]
    missed = chebval(t, coefficients) - y
    size = float(np.sqrt(np.mean(y[:-_POINTS] ** 2))) or 1.0
    error = float(np.sqrt(np.mean(missed[:-_POINTS] ** 2))) / size
    return Fit(coefficients, center, radius, error, float(np.abs(missed[-_POINTS:]).max()))
