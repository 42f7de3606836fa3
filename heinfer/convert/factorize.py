"""Factorize convolutions: a d x d convolution becomes an FFConv of lower rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, overload

from torch import nn

from heinfer.convert.losses import Array
from heinfer.convert.plans import Progress
from heinfer.convert.rank_choice import choose_ranks
from heinfer.convert.rank_report import Budget, RankReport
from heinfer.convert.svd import default_layers, factorizable, factorized, smallest_rank
from heinfer.errors import SettingError


class Factorization(NamedTuple):
    """A model factorized to keep to a budget, and what was chosen for which reason."""

    module: nn.Module
    report: RankReport


@overload
def factorize(
    module: nn.Module, *, rank: int | Mapping[str, int], layers: Sequence[str] | None = None
) -> nn.Module: ...


@overload
def factorize(module: nn.Module, *, energy: float, layers: Sequence[str] | None = None) -> nn.Module: ...


@overload
def factorize(
    module: nn.Module,
    *,
    budget: float | Budget,
    layers: Sequence[str] | None = None,
    example_shape: tuple[int, ...] | None = None,
    calibration: Array | None = None,
    progress: Progress | None = None,
) -> Factorization: ...


def factorize(
    module: nn.Module,
    *,
    rank: int | Mapping[str, int] | None = None,
    energy: float | None = None,
    budget: float | Budget | None = None,
    layers: Sequence[str] | None = None,
    example_shape: tuple[int, ...] | None = None,
    calibration: Array | None = None,
    progress: Progress | None = None,
) -> nn.Module | Factorization:
    """Return a copy of ``module`` in which convolutions are FFConv2d, by truncated SVD of their weights.

    The c_out x (c_in d^2) weight matrix W = U S V^T becomes V^T's first rows, scaled by sqrt(S), as the d x d
    factor and U's first columns, scaled by sqrt(S), as the 1 x 1 factor: at full rank exactly the same map, below
    it the nearest one of that rank in the Frobenius norm (Eckart-Young). Source: FFConv, arXiv 2102.03494.

    Exactly one of ``rank``, ``energy`` and ``budget`` says how far. With a budget the ranks are chosen by
    :func:`heinfer.convert.choose_ranks`, and the result is a :class:`Factorization`, ``(module, report)``.

    Args:
        module: any model; its convolutions are named by their paths, such as ``conv2`` or ``stage1.0.conv``.
        rank: rank of every factorized layer, or a rank for each path (which then also chooses the layers).
        energy: in (0, 1]; the smallest rank that keeps this share of the squared singular values.
        budget: predicted milliseconds of one encrypted image, one thread, on SEAL; a Budget also says what is required
            of the plan besides, and whose cost table predicts the time.
        layers: paths to factorize; by default every convolution with a kernel above 1 x 1 except the first, and with
            a budget only those among them that can be factorized. With a budget any of them may stay as it is.
        example_shape: shape of one input without the batch axis; a budget needs it, or calibration.
        calibration: with a budget: (batch, *example_shape) inputs, preprocessed, on which the loss is measured.
        progress: with a budget: called after every plan.

    Raises:
        SettingError: not exactly one of rank, energy and budget; a path that is no convolution, a rank outside
            1..min(c_out, c_in d^2), or a grouped, dilated or not zero-padded convolution.
        CompileError: with a budget, when the model cannot be planned; PlanError when no ranks keep to the budget.
    """
    if sum(way is not None for way in (rank, energy, budget)) != 1:
        raise SettingError("factorize needs exactly one of rank, energy and budget")
    if budget is not None:
        report = choose_ranks(module, budget, example_shape, layers=layers, calibration=calibration, progress=progress)
        return Factorization(factorized(module, report.ranks), report)
    if example_shape is not None or calibration is not None or progress is not None:
        raise SettingError("example_shape, calibration and progress are of use with a budget only: leave them out")
    if energy is not None and not 0 < energy <= 1:
        raise SettingError(f"energy is a share of the squared singular values, in (0, 1]; got {energy}")
    if layers is None:
        layers = list(rank) if isinstance(rank, Mapping) else default_layers(module)
    return factorized(module, {path: _rank(module, path, rank, energy) for path in layers})


def _rank(module: nn.Module, path: str, rank: int | Mapping[str, int] | None, energy: float | None) -> int:
    conv = factorizable(module, path)
    if energy is not None:
        return smallest_rank(conv, energy)
    wanted = rank.get(path) if isinstance(rank, Mapping) else rank
    if wanted is None:
        raise SettingError(f"{path}: rank names no rank for it")
    return wanted
