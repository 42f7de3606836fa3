"""Polynomials in the Chebyshev basis, channel by channel, of any degree to 15."""

from __future__ import annotations

import numpy as np
import torch
from numpy.polynomial.chebyshev import cheb2poly
from torch import Tensor, nn

from heinfer.errors import SettingError

MAX_DEGREE = 15


class ChebyshevActivation(nn.Module):
    """sum_k coefficients[c, k] T_k((x - center[c]) / radius[c]), T_k the Chebyshev polynomials; coefficients learned.

    Takes (B, channels, ...) and returns the same shape. The basis is bounded by one on the interval, whatever its
    place and width, so that coefficients of one size do for all layers; outside of it a polynomial of degree d grows
    as the d-th power, which no encrypted program can prevent: train with a penalty on that
    (:func:`heinfer.convert.polynomialize` does).

    Args:
        coefficients: (channels or 1, degree + 1), degree 1 to 15; one row serves all channels.
        center, radius: (channels or 1,) of the intervals; radius > 0. They do not learn.

    Raises:
        SettingError: other shapes, a radius that is not positive, numbers that are not finite.
    """

    center: Tensor
    radius: Tensor

    def __init__(self, coefficients: Tensor, center: Tensor, radius: Tensor) -> None:
        super().__init__()
        _require(coefficients, center, radius)
        self.coefficients = nn.Parameter(coefficients.detach().clone())
        self.register_buffer("center", center.detach().clone())
        self.register_buffer("radius", radius.detach().clone())

    @property
    def degree(self) -> int:
        return self.coefficients.shape[1] - 1

    def forward(self, x: Tensor) -> Tensor:
        of = _by_powers if torch.onnx.is_in_onnx_export() else torch.ops.heinfer.chebyshev
        result: Tensor = of(x, self.coefficients, self.center, self.radius)
        return result

    def extra_repr(self) -> str:
        return f"channels={max(len(self.coefficients), len(self.center))}, degree={self.degree}"


def chebyshev(x: Tensor, coefficients: Tensor, center: Tensor, radius: Tensor) -> Tensor:
    """The value of :class:`ChebyshevActivation`, by Clenshaw's recurrence; it is ``torch.ops.heinfer.chebyshev``."""
    shape = (1, -1) + (1,) * (x.dim() - 2)
    t = (x - center.reshape(shape)) * radius.reciprocal().reshape(shape)
    *lower, last = (coefficients[:, k].reshape(shape) for k in range(coefficients.shape[1]))
    if len(lower) == 1:
        return lower[0] + last * t
    twice = 2 * t
    later: Tensor | None = None
    value = last  # b_k of the recurrence b_k = c_k + 2 t b_(k+1) - b_(k+2)
    for coefficient in reversed(lower[1:]):
        following = coefficient + twice * value
        value, later = following if later is None else following - later, value
    assert later is not None
    return lower[0] + t * value - later


def _by_powers(x: Tensor, coefficients: Tensor, center: Tensor, radius: Tensor) -> Tensor:
    """The same in operators that ONNX has, by Horner's rule, which is read as one polynomial again."""
    shape = (1, -1) + (1,) * (x.dim() - 2)
    t = (x - center.reshape(shape)) * radius.reciprocal().reshape(shape)
    size = coefficients.shape[1]
    powers = np.zeros((size, size))  # of T_n in a row
    for n, row in enumerate(np.eye(size)):
        powers[n, : n + 1] = cheb2poly(row[: n + 1])
    series = coefficients @ torch.tensor(powers).to(coefficients)
    *lower, value = (series[:, k].reshape(shape) for k in range(size))
    for coefficient in reversed(lower):
        value = value * t + coefficient
    return value


# One node in an exported graph, where the importer takes it for the polynomial that it is; to autograd it is its parts.
_LIBRARY = torch.library.Library("heinfer", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define("chebyshev(Tensor x, Tensor coefficients, Tensor center, Tensor radius) -> Tensor")  # type: ignore[no-untyped-call]
_LIBRARY.impl("chebyshev", chebyshev, "CompositeImplicitAutograd")  # type: ignore[no-untyped-call]


def _require(coefficients: Tensor, center: Tensor, radius: Tensor) -> None:
    if coefficients.dim() != 2 or not 2 <= coefficients.shape[1] <= MAX_DEGREE + 1:
        raise SettingError(
            f"coefficients of shape {tuple(coefficients.shape)}: give (channels or 1, degree + 1), "
            f"with a degree of 1 to {MAX_DEGREE}"
        )
    sizes = {len(coefficients), *center.shape, *radius.shape} - {1}
    if center.dim() != 1 or radius.dim() != 1 or len(sizes) > 1:
        raise SettingError(
            f"center of shape {tuple(center.shape)} and radius of {tuple(radius.shape)} for {len(coefficients)} rows "
            "of coefficients: give each one number, or one for each channel"
        )
    if not all(bool(x.isfinite().all()) for x in (coefficients, center, radius)) or not bool((radius > 0).all()):
        raise SettingError("coefficients, center and radius must be finite, and every radius above 0")
