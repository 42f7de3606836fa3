"""Choose the rank of every convolution: the least loss of accuracy for which the whole network keeps to a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil

from torch import nn

from heinfer.convert.combinations import MOST_COMBINATIONS, Change, Combination, TimeModel, frontier
from heinfer.convert.losses import Array, losses
from heinfer.convert.plans import Plans, Progress
from heinfer.convert.rank_report import Budget, LayerChoice, RankReport
from heinfer.convert.svd import can_be_factorized, default_layers, factorizable, full_rank
from heinfer.errors import PlanError, SettingError

MOST_CHECKS = (MOST_COMBINATIONS + 1).bit_length()
"""Plans of combinations that the model proposes: the fastest of all, and one for every step of a bisection."""


def choose_ranks(
    module: nn.Module,
    budget: float | Budget,
    example_shape: tuple[int, ...] | None = None,
    *,
    layers: Sequence[str] | None = None,
    calibration: Array | None = None,
    progress: Progress | None = None,
) -> RankReport:
    """Return the ranks with the least loss for which the predicted time of one encrypted image keeps to a budget.

    Whole networks are planned, since a layer's layout is its neighbours' concern: as it is; with one layer factorized,
    at powers of two, half the full rank and the full rank, up to a rank whose halves take neither fewer rotations nor
    fewer products than the layer; and those ranks that are of no use to a layer alone once more with all others at
    their fastest. From these follow modelled times of combinations (heinfer/convert/combinations.py). A bisection over
    the combinations worth it, each then planned for real, ends at the least loss that keeps to the budget.

    A network that keeps to the budget as it is takes 1 plan. Otherwise l layers with r ranks together take at most
    1 + r plans if l is 1, and 1 + r + 2 l + MOST_CHECKS if it is more. The same arguments give the same ranks, and a
    smaller budget never a smaller loss. The loss is the sum of the layers' (heinfer/convert/losses.py), a stand-in
    for accuracy before fine-tuning.

    Two halves take a level more than one layer. Where that is dearer than what they save, the planner merges them again
    by itself (heinfer.planner.search.merging), if their product has a size that it tries: the time that counts here is
    that of the plan it makes.

    Args:
        module: a chain of supported layers, trained; it is not changed.
        budget: predicted milliseconds of one encrypted image, one thread.
        example_shape: shape of one input without the batch axis; that of calibration when it is left out.
        layers: paths that may be factorized; by default every convolution that can be, with a kernel above 1 x 1,
            except the first.
        calibration: (batch, *example_shape) inputs, preprocessed; with them the loss is each layer's relative
            output error, without them the share of its squared singular values.
        progress: called after every plan.

    Raises:
        SettingError: neither example_shape nor calibration, or two that do not fit; a layer that cannot be factorized.
        CompileError: the network as it is has no plan.
        PlanError: no plan that was made keeps to the budget; names the least time and the layer that takes most of it.
    """
    if not isinstance(budget, Budget):
        budget = Budget(budget)
    shape = _shape(example_shape, calibration)
    if layers is None:
        layers = [path for path in default_layers(module) if can_be_factorized(module, path)]
    layers = list(dict.fromkeys(layers))
    choices = [candidate_ranks(full_rank(factorizable(module, path))) for path in layers]
    most = 1 + sum(map(len, choices)) + (2 * len(layers) + MOST_CHECKS if len(layers) > 1 else 0)
    plans = Plans(module, shape, layers, budget.requirements, most, progress)
    lost = losses(module, layers, calibration)
    search = _Search(plans, choices, lost, budget.milliseconds)
    return _report(budget, plans, choices, lost, search.run())


def candidate_ranks(full: int) -> list[int]:
    """Powers of two, half the full rank and the full rank."""
    return sorted({2**k for k in range(full.bit_length())} | {max(1, full // 2), full})


def _shape(example_shape: tuple[int, ...] | None, calibration: Array | None) -> tuple[int, ...]:
    if calibration is None:
        if example_shape is None:
            raise SettingError("a budget needs example_shape, the shape of one input, or calibration inputs")
        return tuple(example_shape)
    shape = tuple(calibration.shape[1:] if example_shape is None else example_shape)
    if calibration.shape[1:] != shape or not len(calibration):
        raise SettingError(f"calibration inputs have shape (batch, *{shape}), not {calibration.shape}")
    return shape


_Losses = Mapping[str, Sequence[float]]


class _Search:
    """The search for one network and budget, over combinations of ranks."""

    def __init__(self, plans: Plans, choices: Sequence[Sequence[int]], lost: _Losses, milliseconds: float) -> None:
        self.plans = plans
        self.choices = choices
        self.lost = lost
        self.milliseconds = milliseconds
        self.changes: dict[tuple[int, int], Change] = {}

    def run(self) -> Combination:
        """The combination of least loss among the plans that keep to the budget; PlanError when none does."""
        base = self.plans.as_it_is
        if self._keeps(base):
            return base
        self._change_each(dict.fromkeys(range(len(base)), base))
        if len(base) > 1:
            self._change_each(self._among_the_fastest())
        model = TimeModel(self.plans.paths, self.plans.timings, self.changes, self.plans.costs)
        ranks = [[rank for number, rank in self.changes if number == layer] for layer in range(len(base))]
        worth_it = frontier(ranks, self._loss, model)
        known = list(self.plans.timings)
        if self._keeps(worth_it[-1]):
            known.append(self._first_kept(worth_it))
        kept = [combination for combination in known if self._keeps(combination)]
        if not kept:
            raise PlanError(self._infeasible())
        return min(kept, key=lambda c: (self._loss(c), self.plans.milliseconds(c)))

    def _change_each(self, before: Mapping[int, Combination]) -> None:
        """Find what ranks that are not known yet change of a combination, until one is of no use, layer by layer."""
        for number, combination in before.items():
            for rank in self.choices[number]:
                if (number, rank) in self.changes:
                    continue
                change = Change(combination, (*combination[:number], rank, *combination[number + 1 :]))
                if not self._is_of_use(number, change):
                    break  # and higher ranks take more still
                self.changes[number, rank] = change

    def _is_of_use(self, number: int, change: Change) -> bool:
        before, after = (self.plans.timing(combination) for combination in (change.before, change.after))
        if before is None or after is None:
            return False
        path = self.plans.paths[number]
        whole, halves = before.counts(path), after.counts(path)
        return halves.rotations < whole.rotations or halves.hma < whole.hma

    def _among_the_fastest(self) -> dict[int, Combination]:
        """For each layer with ranks still unknown: it as it is, and every other at the rank that is fastest alone."""
        fastest = [
            min(
                (rank for number, rank in self.changes if number == layer),
                key=lambda rank: self.plans.milliseconds(self.changes[layer, rank].after),
                default=None,
            )
            for layer in range(len(self.choices))
        ]
        found = {}
        for layer, ranks in enumerate(self.choices):
            others: Combination = (*fastest[:layer], None, *fastest[layer + 1 :])
            if others != self.plans.as_it_is and not all((layer, rank) in self.changes for rank in ranks):
                found[layer] = others
        return found

    def _first_kept(self, combinations: Sequence[Combination]) -> Combination:
        """The combination at which a bisection ends, of which the last is known to keep to the budget.

        As every plan answers for itself, a larger budget leads to the same one or to one that comes earlier.
        """
        over, within = -1, len(combinations) - 1
        while within - over > 1:
            middle = (over + within) // 2
            if self._keeps(combinations[middle]):
                within = middle
            else:
                over = middle
        return combinations[within]

    def _keeps(self, combination: Combination) -> bool:
        return self.plans.milliseconds(combination) <= self.milliseconds

    def _loss(self, combination: Combination) -> float:
        return sum(_losses_of(combination, self.plans.paths, self.lost))

    def _infeasible(self) -> str:
        fastest = min(self.plans.timings, key=self.plans.milliseconds)
        ranks = [f"{path} at rank {rank}" for path, rank in self.plans.ranks(fastest).items()]
        name, share = self.plans.dominant(fastest)
        return (
            f"no ranks keep to {self.milliseconds:g} ms an image: the least time found is "
            f"{_rounded_up(self.plans.milliseconds(fastest))} ms, with {', '.join(ranks) or 'every layer as it is'}, "
            f"and {name} takes {share:.0%} of it; raise the budget to that, or let {name} compute less (fewer "
            "channels, a larger stride before it)"
        )


def _losses_of(combination: Combination, paths: Sequence[str], lost: _Losses) -> list[float]:
    return [0.0 if rank is None else lost[path][rank] for path, rank in zip(paths, combination, strict=True)]


def _rounded_up(milliseconds: float) -> float:
    return ceil(100 * milliseconds) / 100


def _report(
    budget: Budget, plans: Plans, choices: Sequence[Sequence[int]], lost: _Losses, chosen: Combination
) -> RankReport:
    """What a combination is, costs and loses, layer by layer, beside the network as it is."""
    base = plans.as_it_is
    layers = (
        LayerChoice(path, ranks[-1], rank, loss, plans.milliseconds(base, path), plans.milliseconds(chosen, path))
        for path, ranks, rank, loss in zip(
            plans.paths, choices, chosen, _losses_of(chosen, plans.paths, lost), strict=True
        )
    )
    times = plans.milliseconds(base), plans.milliseconds(chosen)
    return RankReport(budget, tuple(layers), *times, plans.made)
