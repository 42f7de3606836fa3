"""polynomialize(): a trained network with ReLU and max pools as one of polynomials and average pools."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from heinfer.convert.polynomials.choice import Choice
from heinfer.convert.polynomials.fitting import Seen, levels_of
from heinfer.convert.polynomials.graph import graph_of
from heinfer.convert.polynomials.report import ActivationReport, NormReport, PolynomialReport
from heinfer.convert.polynomials.sites import Site, prepared, without_sites
from heinfer.convert.polynomials.tuning import Tuning, tune
from heinfer.convert.rank_report import Budget
from heinfer.errors import SettingError
from heinfer.frontend import Model, plain_module
from heinfer.tell import Tell, say_nothing

_AT_ONCE = 256


class Polynomialized(NamedTuple):
    """A network of polynomials, and what became of each activation."""

    module: nn.Module
    report: PolynomialReport


def polynomialize(
    model: Model,
    data: Tensor,
    *,
    labels: Tensor | None = None,
    degree: int | Mapping[str, int] = 2,
    levels: int | None = None,
    budget: Budget | None = None,
    tuning: Tuning | None = None,
    tell: Tell = say_nothing,
) -> Polynomialized:
    """Replace every activation by a polynomial that is fitted to what it sees, and max pools by average pools.

    Layer, group and instance norms get fixed statistics, those of the data. A softmax or sigmoid at the
    end of scores (n, classes) is left off, as labels need none. The model stays as it is.

    Args:
        model: a torch module; what torch.export made of one, with any batch; or an ONNX file or model.
        data: inputs (n, ...), from the training data: what activations see comes from them; tuning learns on them.
        labels: (n,) of them, for the report; tuning learns them only where it gives them a weight.
        degree: of all polynomials, or by the path of an activation; 2 takes one level, 3 two, 7 three, 15 four.
        levels: of polynomials one after another, on the path that takes most; degrees are then chosen, from ``degree``
            on, so that the squares of what polynomials miss add up to least. Those given by path stay.
        budget: predicted time of one encrypted input: of the degrees that are chosen for every number of levels, those
            of the most levels that keep to it. Up to six plans are made.
        tuning: how it is tuned afterwards, with the model as its teacher; not at all by default. Activations that no
            normalisation comes before then get one, which at first changes nothing and costs nothing encrypted.
        tell: is told what is done.

    Raises:
        UnsupportedOperatorError: when the forward cannot be followed, and with a budget when something has no
            encrypted form.
        SettingError: for a degree that is none, fewer levels than activations take, and both levels and a budget.
        PlanError: when no degrees keep to the budget.
    """
    teacher, left_off = graph_of(plain_module(model), data[:1])
    tuned_on, shown = _parted(data, tuning.held_out if tuning else 0)
    learned, labels = (None, None) if labels is None else (labels[: len(tuned_on)], labels[len(data) - len(shown) :])
    found = prepared(teacher)
    student, sites = found.module, found.sites
    if found.norms:
        _scores(student, tuned_on, tell)
        for norm in found.norms:
            norm.fix()
    seen = _seen(student, sites, tuned_on, tell)
    tuned = tuning is not None and tuning.epochs > 0
    for site, values in zip(sites, seen, strict=True):
        of_channels = values.axes in (2, 3, 4, 5) and not (site.dense and values.axes > 2)
        if tuned and not site.normalised and of_channels:
            site.norm = values.norm()
    choice = Choice(student, dict(zip(sites, seen, strict=True)), degree)
    fits = choice.made(levels, budget, tuple(data.shape[1:]), tell)
    choice.put(fits)
    expected, fitted = _scores(teacher, shown), _scores(student, shown)
    if tuning is not None and tuned:
        tune(student, teacher, sites, tuned_on, tuning, tell, learned)
    outside = _outside(student, sites, shown)
    now = _scores(student, shown)
    activations = tuple(
        ActivationReport(
            site.path,
            site.kind,
            f.center - f.radius,
            f.center + f.radius,
            f.degree,
            levels_of(f.degree),
            f.error,
            share,
        )
        for site, f, share in zip(sites, fits, outside, strict=True)
    )
    accuracy = None
    if labels is not None:
        accuracy = _right(expected, labels), _right(fitted, labels), _right(now, labels)
    report = PolynomialReport(
        activations,
        tuple(NormReport(norm.path, norm.kind, norm.error) for norm in found.norms),
        found.pools,
        left_off,
        choice.depth(fits),
        choice.milliseconds,
        len(shown) if len(shown) < len(data) else 0,
        tuned,
        (_agree(fitted, expected), _agree(now, expected)),
        accuracy,
    )
    return Polynomialized(without_sites(student).eval(), report)


def _parted(data: Tensor, held_out: int) -> tuple[Tensor, Tensor]:
    """What is learned from, and what the report is of: the same where nothing is held out."""
    if not 0 <= held_out < len(data):
        raise SettingError(f"of {len(data)} inputs {held_out} cannot be held out")
    return (data[:-held_out], data[-held_out:]) if held_out else (data, data)


def _seen(student: nn.Module, sites: Sequence[Site], data: Tensor, tell: Tell) -> list[Seen]:
    seen = [Seen() for _ in sites]
    for site, values in zip(sites, seen, strict=True):
        site.watch = values
    _scores(student, data, tell)
    for site in sites:
        site.watch = None
    return seen


def _scores(model: nn.Module, data: Tensor, tell: Tell = say_nothing) -> Tensor:
    model.eval()
    parts = []
    with torch.no_grad():
        for done, part in enumerate(torch.split(data, _AT_ONCE)):
            tell("observe", done * _AT_ONCE, len(data))
            parts.append(model(part))
    return torch.cat(parts)


def _outside(student: nn.Module, sites: Sequence[Site], data: Tensor) -> list[float]:
    counted = [[0, 0] for _ in sites]
    for site, count in zip(sites, counted, strict=True):
        site.watch = _counting(site, count)
    _scores(student, data)
    for site in sites:
        site.watch = None
    return [beyond / max(1, every) for beyond, every in counted]


def _counting(site: Site, count: list[int]) -> Callable[[Tensor], None]:
    def watch(x: Tensor) -> None:
        assert site.polynomial is not None
        center, radius = float(site.polynomial.center[0]), float(site.polynomial.radius[0])
        count[0] += int(((x - center).abs() > radius).sum())
        count[1] += x.numel()

    return watch


def _agree(scores: Tensor, expected: Tensor) -> float:
    return float((_labels(scores) == _labels(expected)).double().mean())


def _right(scores: Tensor, labels: Tensor) -> float:
    return float((_labels(scores) == labels).double().mean())


def _labels(scores: Tensor) -> Tensor:
    """The largest score's, or the sign of a single one."""
    flat = scores.flatten(1)
    return flat.argmax(1) if flat.shape[1] > 1 else (flat[:, 0] > 0).long()
