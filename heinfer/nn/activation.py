"""Activations that CKKS can evaluate: polynomials of degree two."""

from __future__ import annotations

from math import expm1, log, pi, sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional

_HERMITE = 1 / sqrt(2 * pi)  # E[relu(x)] for x ~ N(0, 1)


class PolyActivation(nn.Module):
    """a_c x^2 + b_c x + c_c with learned coefficients for every channel.

    Takes (B, channels, ...) and returns the same shape. a_c >= ``SMALLEST_A`` at any parameter value: the encrypted
    program evaluates a (x + b/2a)^2 + (c - b^2/4a), and a small a would make the shift b/2a, and with it the
    squared value, large against what is left after the two constants cancel, at the price of that many bits of
    precision. A positive a loses no generality: the next layer's weights take the sign.

    Starts as the least-squares quadratic of ReLU under a standard normal input (its Hermite expansion):
    (x^2 / 2 + 1 / 2) / sqrt(2 pi) + x / 2.
    """

    SMALLEST_A = 0.1

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.raw_a = nn.Parameter(torch.full((channels,), _inverse_softplus(_HERMITE / 2 - self.SMALLEST_A)))
        self.b = nn.Parameter(torch.full((channels,), 0.5))
        self.c = nn.Parameter(torch.full((channels,), _HERMITE / 2))

    def coefficients(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return (a, b, c) as they act, each of shape (channels,)."""
        return self.SMALLEST_A + functional.softplus(self.raw_a), self.b, self.c

    def forward(self, x: Tensor) -> Tensor:
        shape = (1, self.channels) + (1,) * (x.dim() - 2)
        a, b, c = (v.reshape(shape) for v in self.coefficients())
        return (a * x + b) * x + c

    def extra_repr(self) -> str:
        return f"channels={self.channels}"


def _inverse_softplus(y: float) -> float:
    return log(expm1(y))
