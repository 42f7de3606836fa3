"""polynomialize(): a trained network with ReLU and max pools as one of polynomials and average pools."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from heinfer.brief import brief_repr
from heinfer.convert.polynomials.fitting import Fit, Seen, fit, levels_of
from heinfer.convert.polynomials.sites import Site, with_sites, without_sites
from heinfer.convert.polynomials.tuning import Tuning, tune
from heinfer.errors import SettingError
from heinfer.frontend import Model, plain_module
from heinfer.tell import Tell, say_nothing

DEGREES = (2, 3, 7, 15)
"""From which degrees are chosen: the highest that 1, 2, 3 and 4 levels can be used for."""
_AT_ONCE = 256


@dataclass(frozen=True)
class ActivationReport:
    """What became of one call of an activation.

    Attributes:
        path: of its module, or that and the function's name.
        activation: its name.
        low, high: the interval of the polynomial.
        degree, levels: of the polynomial.
        error: root mean square of what it misses on the data, in parts of that of the activation.
        outside: share of the data's values outside of the interval, in the network as it is now.
    """

    path: str
    activation: str
    low: float
    high: float
    degree: int
    levels: int
    error: float
    outside: float


@dataclass(frozen=True)
class PolynomialReport:
    """What became of a network.

    Attributes:
        activations: in the order of their calls.
        pools: max pools that became average pools.
        agreement: share of the data whose label is that of the network before: fitted, and now.
        accuracy: on data with labels: before, fitted, now; None without labels.
    """

    activations: tuple[ActivationReport, ...]
    pools: int
    agreement: tuple[float, float]
    accuracy: tuple[float, float, float] | None

    __repr__ = brief_repr

    def _about(self) -> str:
        return f"{len(self.activations)} activations, {self.agreement[1]:.2%} of the labels as before"

    def __str__(self) -> str:
        rows = [("activation", "is", "interval", "degree", "levels", "error", "outside")]
        rows += [
            (a.path, a.activation, f"{a.low:.3g} to {a.high:.3g}", str(a.degree), str(a.levels), f"{a.error:.1%}",
             f"{a.outside:.2%}")
            for a in self.activations
        ]  # fmt: skip
        widths = [max(len(row[i]) for row in rows) for i in range(7)]
        lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines.append(f"{self.pools} max pools are average pools")
        lines.append("labels as before: {:.2%} fitted, {:.2%} now".format(*self.agreement))
        if self.accuracy:
            lines.append("accuracy: {:.2%} before, {:.2%} fitted, {:.2%} now".format(*self.accuracy))
        return "\n".join(lines)


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
    tuning: Tuning | None = None,
    tell: Tell = say_nothing,
) -> Polynomialized:
    """Replace every activation by a polynomial that is fitted to what it sees, and max pools by average pools.

    The model stays as it is. A sigmoid at the end is left, as labels need none: compile without it.

    Args:
        model: a torch module; what torch.export made of one, with any batch; or an ONNX file or model, of which a
            softmax or sigmoid at the end is left off.
        data: inputs (n, ...), from the training data: what activations see comes from them; tuning learns on them.
        labels: (n,) of them, for the report.
        degree: of all polynomials, or by the path of an activation; 2 takes one level, 3 two, 7 three, 15 four.
        levels: of all polynomials together; degrees are then raised where that mends most, until they are used up.
        tuning: how it is tuned afterwards, with the model as its teacher; not at all by default. Activations that no
            normalisation comes before then get one, which at first changes nothing and costs nothing encrypted.
        tell: is told what is done.

    Raises:
        UnsupportedOperatorError: when the forward cannot be followed.
        SettingError: for a degree that is none, and fewer levels than activations.
    """
    module = plain_module(model)
    teacher = copy.deepcopy(module).eval()
    tuned_on, shown = _parted(data, tuning.held_out if tuning else 0)
    labels = None if labels is None else labels[len(data) - len(shown) :]
    student, sites, pools = with_sites(module)
    seen = _seen(student, sites, tuned_on, tell)
    if tuning is not None and tuning.epochs:
        for site, values in zip(sites, seen, strict=True):
            if not site.normalised and values.axes in (2, 3, 4, 5) and not (site.dense and values.axes > 2):
                site.norm = values.norm()
    fits = _fits(sites, seen, degree, levels)
    for site, found, values in zip(sites, fits, seen, strict=True):
        site.polynomial = found.module(values.channels).to(data.dtype)
    expected, fitted = _scores(teacher, shown), _scores(student, shown)
    if tuning is not None and tuning.epochs:
        tune(student, teacher, sites, tuned_on, tuning, tell)
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
    agreement = _agree(fitted, expected), _agree(now, expected)
    accuracy = None
    if labels is not None:
        accuracy = _right(expected, labels), _right(fitted, labels), _right(now, labels)
    return Polynomialized(without_sites(student).eval(), PolynomialReport(activations, pools, agreement, accuracy))


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


def _fits(
    sites: Sequence[Site], seen: Sequence[Seen], degree: int | Mapping[str, int], levels: int | None
) -> list[Fit]:
    paths = {site.path for site in sites}
    unknown = set(degree) - paths if isinstance(degree, Mapping) else set()
    if unknown:
        raise SettingError(f"there is no activation {sorted(unknown)[0]}: there are {', '.join(sorted(paths))}")
    chosen = [degree.get(site.path, 2) if isinstance(degree, Mapping) else degree for site in sites]
    if any(not 1 <= d <= DEGREES[-1] for d in chosen):
        raise SettingError(f"a degree is 1 to {DEGREES[-1]}, not {max(chosen)}")
    fits = [fit(site.of_numbers, values, d) for site, values, d in zip(sites, seen, chosen, strict=True)]
    if levels is None:
        return fits
    if levels < len(sites):
        raise SettingError(f"{len(sites)} activations take {len(sites)} levels at least, not {levels}")
    spent = sum(levels_of(f.degree) for f in fits)
    while spent < levels:
        better = {
            number: fit(sites[number].of_numbers, seen[number], DEGREES[levels_of(f.degree)])
            for number, f in enumerate(fits)
            if levels_of(f.degree) < len(DEGREES)
        }
        if not better:
            break
        number = max(better, key=lambda n: fits[n].error - better[n].error)
        fits[number] = better[number]
        spent += 1
    return fits


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
