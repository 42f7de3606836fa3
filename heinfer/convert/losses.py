"""What cutting the rank of a convolution is expected to cost in accuracy: the share of energy that is lost.

Of W = U S V^T, rank r keeps the first r components. On inputs X the exact output is Y = U Z with Z = S V^T X, and
since the columns of U are orthonormal, |Y - Y_r|^2 is the energy of the rows of Z that are cut: one pass over the
data gives the error of every rank. Without data, white inputs are assumed, and a row's energy is s_k^2.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from heinfer.convert.svd import decompose, factorizable

Array = NDArray[np.float32] | NDArray[np.float64]

_AT_ONCE = 64


def losses(module: nn.Module, paths: Sequence[str], calibration: Array | None) -> dict[str, tuple[float, ...]]:
    """Return for each path the loss of every rank 0, 1, ..., full: 1, falling to exactly 0.

    With calibration data the loss is the layer's relative output error |Y - Y_r|^2 / |Y|^2 on them, Y without its
    bias and all earlier layers exact; without, it is the share of the squared singular values that is cut.
    """
    if calibration is None:
        energies = {path: decompose(factorizable(module, path))[1].square() for path in paths}
    else:
        energies = _output_energies(module, paths, calibration)
    return {path: _tails(energy) for path, energy in energies.items()}


def _tails(energy: Tensor) -> tuple[float, ...]:
    """Share of the energy in the components from each on; summed from the small end, so that the last is exact."""
    tails = np.append(energy.numpy()[::-1].cumsum()[::-1], 0.0)
    return tuple((tails / (tails[0] or 1.0)).tolist())


def _output_energies(module: nn.Module, paths: Sequence[str], calibration: Array) -> dict[str, Tensor]:
    """Energy of every output component U^T Y, over all images and positions."""
    copied = copy.deepcopy(module).eval()
    energies: dict[str, Tensor] = {}
    for path in paths:
        conv = factorizable(copied, path)
        u, s, _ = decompose(conv)
        energies[path] = torch.zeros_like(s)
        conv.register_forward_hook(_Meter(energies[path], u))
    inputs = torch.as_tensor(calibration).to(next(copied.parameters()))
    with torch.no_grad():
        for first in range(0, len(inputs), _AT_ONCE):
            copied(inputs[first : first + _AT_ONCE])
    return energies


class _Meter:
    """A forward hook that adds up the energy of a convolution's output components."""

    def __init__(self, energy: Tensor, u: Tensor) -> None:
        self.energy = energy
        self.u = u

    def __call__(self, conv: nn.Conv2d, _: tuple[Tensor, ...], output: Tensor) -> None:
        y = output.double()
        if conv.bias is not None:
            y = y - conv.bias.double()[:, None, None]
        self.energy += torch.einsum("ok,bohw->kbhw", self.u, y).square().sum((1, 2, 3))
