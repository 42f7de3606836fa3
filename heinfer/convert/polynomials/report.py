"""What became of a network whose activations are polynomials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from heinfer.brief import brief_repr


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
class NormReport:
    """What became of one call of a norm that divides by statistics of its input.

    Attributes:
        path: of its module, or that and the function's name.
        norm: its name.
        error: root mean square of what constant statistics miss on the data, in parts of the norm's output; where
            nothing else in the network is replaced yet.
    """

    path: str
    norm: str
    error: float


@dataclass(frozen=True)
class PolynomialReport:
    """What became of a network. Prints as a table.

    Attributes:
        activations: in the order of their calls.
        norms: those whose statistics are constants now, in the order of their calls.
        pools: max pools that became average pools.
        left_off: path of the softmax or sigmoid that was at the end; empty where there was none.
        depth: levels of the polynomials on the path that takes most.
        milliseconds: predicted time of one encrypted input; None where no budget asked for it.
        held_out: inputs that nothing was fitted to, which agreement and accuracy are of; 0 where there are none, and
            both are of the data that polynomials were fitted to.
        tuned: whether it was tuned.
        agreement: share of the data whose label is that of the network before: fitted, and now.
        accuracy: on data with labels: before, fitted, now; None without labels.
    """

    activations: tuple[ActivationReport, ...]
    norms: tuple[NormReport, ...]
    pools: int
    left_off: str
    depth: int
    milliseconds: float | None
    held_out: int
    tuned: bool
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
        lines = _columns(rows) if self.activations else []
        if self.norms:
            rows_of_norms = [(norm.path, norm.norm, f"{norm.error:.1%}") for norm in self.norms]
            lines += _columns([("norm, its statistics fixed", "is", "error"), *rows_of_norms])
        if self.pools:
            lines.append(f"{self.pools} max pools are average pools")
        if self.left_off:
            lines.append(f"{self.left_off} at the end is left off: the largest score stays the largest")
        lines.append(f"levels of the polynomials, one after another: {self.depth}")
        if self.milliseconds is not None:
            lines.append(f"predicted time of an encrypted input: {self.milliseconds:.0f} ms")
        return "\n".join([*lines, *self._costs()])

    def _costs(self) -> list[str]:
        fitted, now = self.agreement
        lines = [f"labels as before: {fitted:.2%} fitted" + (f", {now:.2%} tuned" if self.tuned else "")]
        if self.accuracy:
            before, then, after = self.accuracy
            lines.append(f"accuracy: {before:.2%} before, {then:.2%} fitted" + f", {after:.2%} tuned" * self.tuned)
        of = (
            f"of {self.held_out} inputs held out"
            if self.held_out
            else "of the data that it was fitted to, none held out"
        )
        lines.append(f"that is {of}")
        if not self.tuned:
            lost = f"{1 - fitted:.2%} of the labels differ"
            if self.accuracy:
                lost += f", and {100 * (self.accuracy[0] - self.accuracy[1]):.2f} points of accuracy are lost"
            lines.append(f"nothing was tuned: what calibration alone costs: {lost}")
        return lines


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
