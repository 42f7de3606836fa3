"""What a choice of ranks was asked, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass

from heinfer.brief import brief_repr
from heinfer.errors import SettingError
from heinfer.planner.objective import DEFAULT, Wishes


@dataclass(frozen=True)
class Budget:
    """What one encrypted image may take.

    Attributes:
        milliseconds: predicted time of an image, one thread; that of a batch, divided by its images.
        wishes: of the plan besides: limits, how many images are a batch, whose cost table predicts the time.
    """

    milliseconds: float
    wishes: Wishes = DEFAULT

    __repr__ = brief_repr

    def __post_init__(self) -> None:
        if not self.milliseconds > 0:  # also when it is no number
            raise SettingError(f"a budget is a time above 0 ms, got {self.milliseconds}")


@dataclass(frozen=True)
class LayerChoice:
    """What was chosen for one convolution.

    Attributes:
        path: of the convolution in the model.
        full_rank: at which it would lose nothing.
        rank: of its FFConv; None when it stays as it is.
        loss: share of its energy that the rank cuts, in [0, 1].
        milliseconds_before, milliseconds: predicted time of it, or its two halves, for one image.
    """

    path: str
    full_rank: int
    rank: int | None
    loss: float
    milliseconds_before: float
    milliseconds: float

    __repr__ = brief_repr


@dataclass(frozen=True)
class RankReport:
    """The ranks that keep to a budget at the least loss that was found. Prints as a table.

    Attributes:
        budget: what was asked for.
        layers: every convolution for which there was a choice.
        milliseconds_before, milliseconds: predicted time of the whole network as it was and as it is, for one image.
        plans: how many whole networks were planned to find out.
    """

    budget: Budget
    layers: tuple[LayerChoice, ...]
    milliseconds_before: float
    milliseconds: float
    plans: int

    __repr__ = brief_repr

    @property
    def loss(self) -> float:
        """Sum of the layers' losses."""
        return sum(layer.loss for layer in self.layers)

    @property
    def ranks(self) -> dict[str, int]:
        """Rank of every layer that is factorized, as ``factorize(module, rank=...)`` takes them."""
        return {layer.path: layer.rank for layer in self.layers if layer.rank is not None}

    def __str__(self) -> str:
        rows = [("layer", "rank", "of", "loss", "ms before", "ms")]
        rows += [
            (layer.path, _rank(layer), str(layer.full_rank), f"{layer.loss:.4f}", *_times(layer))
            for layer in self.layers
        ]
        rows.append(("whole network", "", "", f"{self.loss:.4f}", *_times(self)))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
            for row in rows
        ]
        return "\n".join([*lines, f"budget {self.budget.milliseconds:g} ms an image; {self.plans} plans"])


def _rank(layer: LayerChoice) -> str:
    return "as it is" if layer.rank is None else str(layer.rank)


def _times(row: LayerChoice | RankReport) -> tuple[str, str]:
    return f"{row.milliseconds_before:.4g}", f"{row.milliseconds:.4g}"
