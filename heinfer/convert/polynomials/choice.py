"""Degrees of all polynomials of a model: given, for so many levels, or for a predicted time."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import cached_property

from torch import fx

from heinfer.convert.polynomials.degrees import Step, least_levels, least_loss, most_levels, steps_of
from heinfer.convert.polynomials.fitting import Fit, Seen, fit, levels_of
from heinfer.convert.polynomials.sites import Site, without_sites
from heinfer.convert.rank_report import Budget
from heinfer.errors import CompileError, PlanError, SettingError
from heinfer.frontend import trace
from heinfer.lowering.circuits import cost_of
from heinfer.network.folding import fold
from heinfer.tell import Tell

DEGREES = (2, 3, 7, 15)
"""From which degrees are chosen: the highest that 1, 2, 3 and 4 levels can be used for."""


class Choice:
    """The polynomials that a model can have.

    Args:
        traced: the model, with its sites.
        seen: what each site saw, in the order of their calls.
        degree: of all, or of some by path; of the others 2.

    Attributes:
        milliseconds: predicted of the last choice; None where no budget asked for it.

    Raises:
        SettingError: for a path that there is not, and a degree that is none.
    """

    def __init__(self, traced: fx.GraphModule, seen: Mapping[Site, Seen], degree: int | Mapping[str, int]) -> None:
        paths = {site.path for site in seen}
        by_path = degree if isinstance(degree, Mapping) else {}
        unknown = set(by_path) - paths
        if unknown:
            raise SettingError(f"there is no activation {sorted(unknown)[0]}: there are {', '.join(sorted(paths))}")
        self.milliseconds: float | None = None
        self._traced, self._seen, self._by_path = traced, seen, by_path
        self._least = [by_path.get(site.path, degree if isinstance(degree, int) else 2) for site in seen]
        if any(not 1 <= d <= DEGREES[-1] for d in self._least):
            raise SettingError(f"a degree is 1 to {DEGREES[-1]}, not {max(self._least)}")
        self._fits: dict[tuple[int, int], Fit] = {}

    def made(self, levels: int | None, budget: Budget | None, shape: tuple[int, ...], tell: Tell) -> list[Fit]:
        """The polynomials, one a site; ``shape`` is of one input.

        Raises:
            SettingError, PlanError: as polynomialize has them.
        """
        if levels is not None and budget is not None:
            raise SettingError("levels and a budget of time are two ways to say how much it may take: give one of them")
        if budget is not None:
            return self._within(budget, shape, tell)
        return self._of(self._least) if levels is None else self._for_levels(levels)

    def put(self, fits: Sequence[Fit]) -> None:
        """Let every site have its polynomial."""
        for (site, seen), found in zip(self._seen.items(), fits, strict=True):
            rows = 1 if site.dense and seen.axes > 2 else seen.channels  # channels are then the last axis, not axis 1
            site.polynomial = found.module(rows).to(seen.dtype)

    def depth(self, fits: Sequence[Fit]) -> int:
        """Levels on the path that takes most."""
        taken = {site: {levels_of(f.degree): 0.0} for site, f in zip(self._seen, fits, strict=True)}
        return least_levels(steps_of(self._traced, taken))

    @cached_property
    def _steps(self) -> list[Step]:
        losses = {}
        for number, (site, least) in enumerate(zip(self._seen, self._least, strict=True)):
            degrees = [
                least,
                *(d for d in DEGREES if levels_of(d) > levels_of(least) and site.path not in self._by_path),
            ]
            losses[site] = {levels_of(d): self._fit(number, d).error ** 2 for d in degrees}
        return steps_of(self._traced, losses)

    def _fit(self, number: int, degree: int) -> Fit:
        if (number, degree) not in self._fits:
            site, seen = list(self._seen.items())[number]
            self._fits[number, degree] = fit(site.of_numbers, seen, degree, site.exact_on)
        return self._fits[number, degree]

    def _of(self, degrees: Sequence[int]) -> list[Fit]:
        return [self._fit(number, degree) for number, degree in enumerate(degrees)]

    def _for_levels(self, levels: int) -> list[Fit]:
        taken = iter(count for count in least_loss(self._steps, levels) if count)
        degrees = [
            least if levels_of(least) == count else DEGREES[count - 1]
            for least, count in zip(self._least, taken, strict=True)
        ]
        return self._of(degrees)

    def _within(self, budget: Budget, shape: tuple[int, ...], tell: Tell) -> list[Fit]:
        """By bisection: more levels take more time."""
        low, high = least_levels(self._steps), most_levels(self._steps)
        plans, most = 1, 1 + (high - low).bit_length()
        tell("plan", 0, most)
        best = self._for_levels(low)
        try:
            milliseconds = self._predicted(best, budget, shape)
        except PlanError as error:
            raise PlanError(f"with polynomials of the lowest degrees there is no plan: {error}") from error
        if milliseconds > budget.milliseconds:
            raise PlanError(
                f"with polynomials of the lowest degrees an input takes {milliseconds:.0f} ms, predicted, and "
                f"{budget.milliseconds:g} ms are allowed: allow more, or bring a smaller network"
            )
        while low < high:
            middle = (low + high + 1) // 2
            tell("plan", plans, most)
            plans += 1
            fits = self._for_levels(middle)
            try:
                found = self._predicted(fits, budget, shape)
            except CompileError:  # too deep for any ring
                found = float("inf")
            if found <= budget.milliseconds:
                low, best, milliseconds = middle, fits, found
            else:
                high = middle - 1
        self.milliseconds = milliseconds
        return best

    def _predicted(self, fits: Sequence[Fit], budget: Budget, shape: tuple[int, ...]) -> float:
        self.put(fits)
        module = without_sites(copy.deepcopy(self._traced)).eval()
        for site in self._seen:
            site.polynomial = None
        cost = cost_of(fold(trace(module, shape)), budget.requirements)
        return cost.predicted[budget.requirements.backend] / budget.requirements.batch
