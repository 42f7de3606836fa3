"""Ranks chosen for a budget: of networks whose times are made up, and of a small one that is planned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise, product
from math import inf

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from heinfer.circuit.counts import Counts
from heinfer.circuit.ir import Kind
from heinfer.circuit.typed import TypedCircuit
from heinfer.convert import Budget, RankReport, choose_ranks, factorize, plans
from heinfer.convert.combinations import MOST_COMBINATIONS, Change, TimeModel, frontier
from heinfer.convert.losses import losses
from heinfer.convert.rank_choice import MOST_CHECKS, candidate_ranks
from heinfer.convert.timing import LayerOperations, Timing
from heinfer.costs.prediction import predict
from heinfer.costs.tables import cost_table
from heinfer.errors import CompileError, PlanError, SettingError, ShapeError
from heinfer.frontend import trace
from heinfer.lowering.circuits import circuit_of
from heinfer.network.folding import fold
from heinfer.nn import FFConv2d, PolyActivation
from heinfer.planner.parameters import smallest_parameters
from heinfer.planner.requirements import Limits, Requirements
from heinfer.planner.search.search import plan_network

# Networks whose times are made up ------------------------------------------------------------------

SHAPE = (2, 6, 6)
Operations = Callable[[str, int | None], int]


def chain(layers: int, channels: int = 8, seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sizes = [2, *[channels] * layers]
        return nn.Sequential(*(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(sizes))).eval()


def made_up(operations: Operations, other_levels: int = 0) -> Callable[..., Timing]:
    """A planner that takes a number of rotations for a convolution at a rank, and one for a second half."""

    def planned(module: nn.Module, shape: tuple[int, ...], requirements: Requirements) -> Timing:
        steps: list[tuple[str, int]] = []
        for name, layer in module.named_children():
            if isinstance(layer, FFConv2d):
                steps += [(f"{name}.spatial", operations(name, layer.rank)), (f"{name}.pointwise", 1)]
            elif isinstance(layer, nn.Conv2d):
                steps.append((name, operations(name, None)))
        levels = len(steps) + other_levels
        ring = smallest_parameters(levels)
        if ring is None:
            raise PlanError("too deep")
        return Timing(
            ring.ring_degree,
            levels,
            tuple(
                LayerOperations(name, Counts(rotations=number), Counter({(Kind.ROTATE, False, levels - at): number}))
                for at, (name, number) in enumerate(steps)
            ),
        )

    return planned


def milliseconds(timing: Timing) -> float:
    return timing.milliseconds(cost_table(timing.ring_degree))


def table(numbers: list[list[int]]) -> Operations:
    """Rotations that fall with the rank: a layer's as it is, then by rank."""
    return lambda name, rank: numbers[int(name)][0 if rank is None else candidate_ranks(8).index(rank) + 1]


@st.composite
def tables(draw: st.DrawFn, layers: int) -> list[list[int]]:
    rows = []
    for _ in range(layers):
        whole = draw(st.integers(20, 200))
        halves = draw(st.lists(st.integers(1, whole - 1), min_size=4, max_size=4, unique=True))
        rows.append([whole, *sorted(halves)])
    return rows


def answer(module: nn.Module, milliseconds: float, **options: object) -> RankReport | None:
    paths = [name for name, _ in module.named_children()]
    try:
        return choose_ranks(module, milliseconds, SHAPE, layers=paths, **options)
    except PlanError:
        return None


@pytest.fixture
def planner(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Timing]], None]:
    return lambda planned: monkeypatch.setattr(plans, "planned", planned)


def combinations(layers: int) -> Iterator[tuple[int | None, ...]]:
    return product([None, *candidate_ranks(8)], repeat=layers)


def modules(layers: int) -> dict[tuple[int | None, ...], nn.Module]:
    return {
        c: factorize(chain(layers), rank={str(n): rank for n, rank in enumerate(c) if rank})
        for c in combinations(layers)
    }


TWO = modules(2)


@settings(max_examples=15, deadline=None)
@given(data=st.data(), other_levels=st.integers(0, 5))
def test_the_model_is_exact_where_only_levels_and_the_ring_differ(data: st.DataObject, other_levels: int) -> None:
    planned = made_up(table(data.draw(tables(2))), other_levels)
    timings = {c: planned(module, SHAPE, Requirements()) for c, module in TWO.items()}
    known = {c: timing for c, timing in timings.items() if None in c or c == (1, 8)}
    changes = {(0, rank): Change((None, None), (rank, None)) for rank in candidate_ranks(8)}
    changes |= {(1, rank): Change((None, None), (None, rank)) for rank in candidate_ranks(8)}
    changes[1, 8] = Change((1, None), (1, 8))  # found beside another factorized layer
    model = TimeModel(["0", "1"], known, changes, cost_table)
    for combination, timing in timings.items():
        assert model(combination) == pytest.approx(milliseconds(timing), rel=1e-9)


def test_the_model_knows_that_a_combination_may_be_too_deep_for_any_ring() -> None:
    deepest = max(levels for levels in range(1, 99) if smallest_parameters(levels))
    planned = made_up(table([[50, 1, 2, 3, 4]] * 2), deepest - 3)
    base, changes = (None, None), {(n, 1): Change((None, None), (1, None) if n == 0 else (None, 1)) for n in range(2)}
    known = {c: planned(TWO[c], SHAPE, Requirements()) for c in (base, (1, None), (None, 1))}
    assert TimeModel(["0", "1"], known, changes, cost_table)((1, 1)) == inf


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_the_choice_is_the_best_there_is_where_the_model_is_exact(data: st.DataObject) -> None:
    planned = made_up(table(data.draw(tables(2))))
    times = {c: milliseconds(planned(module, SHAPE, Requirements())) for c, module in TWO.items()}
    lost = losses(chain(2), ["0", "1"], None)
    loss = {c: sum(lost[str(n)][rank] for n, rank in enumerate(c) if rank) for c in times}
    budget = data.draw(st.floats(0.3, 1.1)) * times[None, None]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plans, "planned", planned)
        report = answer(chain(2), budget)
    least = min((loss[c] for c, spent in times.items() if spent <= budget), default=None)
    assert (report is None) == (least is None)
    if report:
        assert report.loss == pytest.approx(least)
        assert report.milliseconds == pytest.approx(times[report.ranks.get("0"), report.ranks.get("1")])


@settings(max_examples=20, deadline=None)
@given(data=st.data(), layers=st.integers(1, 3), other_levels=st.integers(0, 4))
def test_whatever_the_planner_does_the_budget_is_kept_and_a_tighter_one_loses_no_less(
    data: st.DataObject, layers: int, other_levels: int
) -> None:
    """Layers act on each other in ways that no model knows of."""
    numbers, salt = data.draw(tables(layers)), data.draw(st.integers(0, 99))
    made: list[float] = []

    def planned(module: nn.Module, shape: tuple[int, ...], requirements: Requirements) -> Timing:
        ranks = [getattr(part, "rank", 0) for part in module.children()]
        noise = np.random.default_rng([salt, *ranks]).uniform(0.6, 1.6)
        timing = made_up(lambda name, rank: int(noise * table(numbers)(name, rank)), other_levels)(
            module, shape, requirements
        )
        made.append(milliseconds(timing))
        return timing

    module = chain(layers)
    whole = milliseconds(planned(module, SHAPE, Requirements()))
    results = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plans, "planned", planned)
        for share in np.linspace(1.1, 0.2, 6):
            made.clear()
            report = answer(module, share * whole)
            assert len(made) <= 1 + 4 * layers + (2 * layers + MOST_CHECKS if layers > 1 else 0)
            assert report is None or report.plans == len(made)
            assert report is None or any(report.milliseconds == pytest.approx(spent) for spent in made)
            assert report is None or report.milliseconds <= share * whole
            assert report == answer(module, share * whole)
            results.append(inf if report is None else report.loss)
    assert results == sorted(results)
    assert results[0] == 0


def test_a_rank_that_pays_only_beside_others_is_found(planner: Callable[[Callable[..., Timing]], None]) -> None:
    """The second layer's two halves alone are merged again: they save less than the level costs the first layer."""

    def planned(module: nn.Module, shape: tuple[int, ...], requirements: Requirements) -> Timing:
        alone = isinstance(module[1], FFConv2d) and not isinstance(module[0], FFConv2d)
        merged = factorize(chain(2), rank={}) if alone else module
        return made_up(table([[200, 10, 20, 199, 199], [30, 2, 4, 29, 29]]))(merged, shape, requirements)

    planner(planned)
    whole, second_as_it_is, best = (
        milliseconds(planned(TWO[c], SHAPE, Requirements())) for c in ((None,) * 2, (1, None), (1, 1))
    )
    assert best < second_as_it_is < whole
    report = answer(chain(2), best)
    assert report is not None
    assert report.ranks == {"0": 1, "1": 1}


def test_a_frontier_of_many_layers_is_bounded_and_has_both_ends() -> None:
    ranks = [[1, 2, 4, 8]] * 12
    generator = np.random.default_rng(0)
    lost, saved = generator.random((12, 5)), generator.random((12, 5))

    def loss(c: tuple[int | None, ...]) -> float:
        return float(sum(lost[n, r.bit_length()] for n, r in enumerate(c) if r))

    def time(c: tuple[int | None, ...]) -> float:
        return float(100 - sum(saved[n, r.bit_length()] for n, r in enumerate(c) if r))

    found = frontier(ranks, loss, time)
    assert 50 < len(found) <= MOST_COMBINATIONS
    assert found[0] == (None,) * 12
    assert time(found[-1]) == pytest.approx(100 - saved[:, 1:].max(axis=1).sum())
    assert all(loss(a) < loss(b) and time(a) > time(b) for a, b in pairwise(found))


# What becomes of the model -------------------------------------------------------------------------


def with_norms() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        module = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            PolyActivation(4),
            nn.Conv2d(4, 8, (3, 5), stride=2, padding=(0, 2), bias=False),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 8, 3, padding=1, groups=8),
            nn.Conv2d(8, 8, 1),
            nn.Conv2d(8, 6, 2),
        )
        for part in module:
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean = torch.randn(part.num_features)
                part.running_var = torch.rand(part.num_features) + 0.5
        return module.eval()


def times_by_rank(rotations: dict[int, int], otherwise: int) -> Operations:
    """For the layers of with_norms() between which there is a choice; all others take one rotation."""
    return lambda name, rank: 1 if name not in ("3", "7") else rotations.get(rank or 0, otherwise)


IMAGES = np.random.default_rng(0).normal(size=(70, *SHAPE))


def test_at_full_rank_the_model_is_exactly_what_it_was(planner: Callable[[Callable[..., Timing]], None]) -> None:
    planner(made_up(times_by_rank(dict.fromkeys(range(1, 9), 20), otherwise=400)))
    module = with_norms()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    exact = factorize(module, rank={"3": 8, "7": 6})
    least = milliseconds(plans.planned(exact, SHAPE, Requirements()))
    result, report = factorize(module, budget=least, example_shape=SHAPE)
    assert report.ranks == {"3": 8, "7": 6}
    assert report.loss == 0
    assert report.milliseconds == pytest.approx(least)
    x = torch.from_numpy(IMAGES).float()
    torch.testing.assert_close(result(x), module(x), rtol=1e-4, atol=1e-5)
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), "the model given stays as it was"


@pytest.mark.parametrize("calibration", [None, IMAGES])
def test_the_model_is_the_one_that_these_ranks_give(
    calibration: np.ndarray | None, planner: Callable[[Callable[..., Timing]], None]
) -> None:
    planner(made_up(times_by_rank({1: 10, 2: 20, 3: 30, 4: 40, 6: 60, 8: 80}, otherwise=800)))
    module = with_norms().train()
    result, report = factorize(module, budget=500.0, example_shape=SHAPE, calibration=calibration)
    assert set(report.ranks) == {"3", "7"}
    assert [layer.path for layer in report.layers] == ["3", "7"], "not the first, nor 1 x 1, nor depthwise"
    assert all(part.training for part in result.modules())
    expected = factorize(module, rank=report.ranks)
    assert [type(part) for part in result] == [type(part) for part in expected]
    for name, value in expected.state_dict().items():
        assert torch.equal(result.state_dict()[name], value)


def test_what_cannot_be_factorized_is_refused_when_it_is_asked_for() -> None:
    with pytest.raises(SettingError, match="5: groups 8"):
        choose_ranks(with_norms(), 100.0, SHAPE, layers=["3", "5"])


def test_a_network_without_a_choice_keeps_to_its_time_or_does_not(
    planner: Callable[[Callable[..., Timing]], None],
) -> None:
    planner(made_up(lambda *_: 100))
    module = nn.Sequential(nn.Conv2d(2, 4, 3))
    result, report = factorize(module, budget=inf, example_shape=SHAPE)
    assert (report.ranks, report.loss, report.plans) == ({}, 0, 1)
    assert isinstance(result[0], nn.Conv2d)
    with pytest.raises(PlanError, match="with every layer as it is, and 0 takes 100%"):
        factorize(module, budget=1.0, example_shape=SHAPE)


def test_ranks_without_a_plan_are_left_out_and_a_network_without_one_is_an_error(
    planner: Callable[[Callable[..., Timing]], None],
) -> None:
    def limited(most: int) -> Callable[..., Timing]:
        def planned(module: nn.Module, shape: tuple[int, ...], requirements: Requirements) -> Timing:
            if any(getattr(part, "rank", 0) > most for part in module):
                raise PlanError("no plan keeps to a limit")
            return made_up(lambda _, rank: 100 if rank is None else 10 * rank)(module, shape, requirements)

        return planned

    whole = milliseconds(limited(8)(chain(1), SHAPE, Requirements()))
    planner(limited(2))
    report = answer(chain(1), 0.9 * whole)
    assert report is not None
    assert report.ranks == {"0": 2}
    planner(limited(-1))
    with pytest.raises(PlanError, match="no plan keeps to a limit"):
        choose_ranks(chain(1), 0.9 * whole, SHAPE, layers=["0"])


# Losses --------------------------------------------------------------------------------------------


@torch.no_grad()
def test_the_loss_on_data_is_the_relative_error_of_the_output() -> None:
    module = with_norms()
    lost = losses(module, ["3", "7"], IMAGES)
    assert (lost["3"][0], lost["3"][8], len(lost["7"])) == (1.0, 0.0, 7)
    inputs: dict[str, torch.Tensor] = {}
    for path in ("3", "7"):
        module.get_submodule(path).register_forward_hook(lambda _, x, __, path=path: inputs.update({path: x[0]}))
    module(torch.from_numpy(IMAGES).float())
    for path, x in inputs.items():
        conv = module.get_submodule(path)
        bias = 0 if conv.bias is None else conv.bias[:, None, None]
        exact = conv(x) - bias
        for rank in (1, 3, 5):
            cut = factorize(conv, rank=rank, layers=[""])(x) - bias
            assert lost[path][rank] == pytest.approx(
                float((exact - cut).square().sum() / exact.square().sum()), rel=1e-4
            )


def test_the_loss_without_data_is_the_share_of_energy_that_is_cut() -> None:
    module = with_norms()
    values = torch.linalg.svdvals(module[3].weight.detach().double().flatten(1)).square()
    expected = [float(values[rank:].sum() / values.sum()) for rank in range(9)]
    assert losses(module, ["3"], None)["3"] == pytest.approx(expected)


def test_vanished_weights_lose_nothing() -> None:
    conv = nn.Conv2d(2, 3, 3)
    nn.init.zeros_(conv.weight)
    assert losses(conv, [""], None)[""] == losses(conv, [""], IMAGES)[""] == (0.0,) * 4


@pytest.mark.parametrize("full", [1, 2, 3, 8, 12, 163])
def test_candidates_are_powers_of_two_half_and_full(full: int) -> None:
    ranks = candidate_ranks(full)
    assert {1, full, max(1, full // 2)} <= set(ranks) <= set(range(1, full + 1))
    assert {2**k for k in range(8) if 2**k <= full} <= set(ranks)
    assert ranks == sorted(set(ranks))


# Arguments -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"budget": 100.0}, "needs example_shape"),
        ({"budget": 0.0, "example_shape": SHAPE}, "a time above 0 ms, got 0"),
        ({"budget": float("nan"), "example_shape": SHAPE}, "a time above 0 ms, got nan"),
        ({"budget": 1.0, "rank": 2, "example_shape": SHAPE}, "exactly one of rank, energy and budget"),
        ({"rank": 2, "example_shape": SHAPE}, "with a budget only"),
        ({"energy": 0.5, "calibration": IMAGES}, "with a budget only"),
        ({"budget": 1.0, "example_shape": (3, 6, 6), "calibration": IMAGES}, r"\(batch, \*\(3, 6, 6\)\), not \(70, 2"),
        ({"budget": 1.0, "calibration": IMAGES[:0]}, r"not \(0, 2, 6, 6\)"),
        ({"budget": 1.0, "example_shape": SHAPE, "layers": ["9"]}, "9: the model has no such module"),
    ],
)
def test_wrong_arguments_say_what_is_wrong(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        factorize(chain(2), **arguments)


def test_an_input_that_does_not_fit_is_an_error_of_the_network() -> None:
    with pytest.raises(ShapeError, match=r"0: .* to have 2 channels, but got 3"):
        factorize(chain(1), budget=100.0, example_shape=(3, 6, 6), layers=["0"])


def test_progress_is_told_of_every_plan(planner: Callable[[Callable[..., Timing]], None]) -> None:
    planner(made_up(table([[100, 10, 20, 30, 40]] * 2)))
    told: list[tuple[int, int, dict[str, int]]] = []
    report = answer(chain(2), 300.0, progress=lambda done, most, ranks: told.append((done, most, dict(ranks))))
    assert report is not None
    assert [done for done, _, _ in told] == list(range(1, report.plans + 1))
    assert {most for _, most, _ in told} == {1 + 8 + 4 + MOST_CHECKS}
    assert told[0][2] == {}
    assert report.ranks in [ranks for _, _, ranks in told]


# A small network, planned --------------------------------------------------------------------------

REQUIREMENTS = Requirements(batch=1024)
"""Four slots an image: products and rotations are many though the network is small."""
SMALL_SHAPE = (8, 2, 2)


def small() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1), PolyActivation(8), nn.Conv2d(8, 8, 3, padding=1, bias=False)
        ).eval()


@cache
def planned_once(ranks: tuple[int, ...]) -> Timing | CompileError:
    chosen = {path: rank for path, rank in zip(("0", "2"), ranks, strict=True) if rank}
    try:
        return REALLY_PLANNED(factorize(small(), rank=chosen), SMALL_SHAPE, REQUIREMENTS)
    except CompileError as error:
        return error


REALLY_PLANNED = plans.planned


def remembered(module: nn.Module, shape: tuple[int, ...], requirements: Requirements) -> Timing:
    """Plans do not depend on weights: what was planned once for one structure is the same in every test."""
    assert (shape, requirements) == (SMALL_SHAPE, REQUIREMENTS)
    result = planned_once((getattr(module[0], "rank", 0), getattr(module[2], "rank", 0)))
    if isinstance(result, CompileError):
        raise result
    return result


@pytest.fixture
def chosen(planner: Callable[[Callable[..., Timing]], None]) -> Callable[[float], RankReport]:
    planner(remembered)
    return lambda share: choose_ranks(small(), Budget(share * as_it_is(), REQUIREMENTS), SMALL_SHAPE, layers=["0", "2"])


def as_it_is() -> float:
    timing = planned_once((0, 0))
    assert isinstance(timing, Timing)
    return milliseconds(timing) / REQUIREMENTS.batch


def fresh_milliseconds(module: nn.Module) -> float:
    """The predicted time of an image by the public steps, one after the other."""
    plan = plan_network(fold(trace(module, SMALL_SHAPE)), requirements=REQUIREMENTS)
    circuit = circuit_of(plan, REQUIREMENTS)
    cost = cost_table(plan.parameters.ring_degree)
    typed = TypedCircuit(circuit, plan.parameters, plan.input_level, 1.0)
    return sum(predict(circuit, typed.levels, cost)) / plan.batch


def test_a_fresh_plan_of_what_comes_out_keeps_to_the_budget(chosen: Callable[[float], RankReport]) -> None:
    report = chosen(0.7)
    assert report.ranks
    assert report.milliseconds <= report.budget.milliseconds < report.milliseconds_before
    spent = fresh_milliseconds(factorize(small(), rank=report.ranks))
    assert spent == pytest.approx(report.milliseconds)
    parts = [(layer.milliseconds_before, layer.milliseconds) for layer in report.layers]
    assert sum(before for before, _ in parts) < report.milliseconds_before
    assert sum(after for _, after in parts) < report.milliseconds


def test_budgets_from_loose_to_tight(chosen: Callable[[float], RankReport]) -> None:
    assert chosen(1.0).ranks == {}
    assert chosen(1.0).plans == 1
    reports = [chosen(share) for share in (0.95, 0.8, 0.65, 0.5)]
    for report in reports:
        assert report.milliseconds <= report.budget.milliseconds
    assert all(a.loss <= b.loss for a, b in pairwise(reports))
    assert len({tuple(report.ranks.items()) for report in reports}) > 2
    assert set(reports[-1].ranks) == {"0", "2"}, "in the end both are factorized"


def test_a_budget_that_nothing_keeps_is_refused_with_one_that_would_do(chosen: Callable[[float], RankReport]) -> None:
    with pytest.raises(
        PlanError,
        match=r"the least time found is [\d.]+ ms, with 0 at rank 1, 2 at rank 1, and "
        r"[\w.]+ takes \d+% of it",
    ) as caught:
        chosen(0.1)
    least = float(str(caught.value).partition("found is ")[2].partition(" ms")[0])
    assert chosen(least / as_it_is()).ranks == {"0": 1, "2": 1}


def test_a_limit_of_the_requirements_holds_for_every_plan(planner: Callable[[Callable[..., Timing]], None]) -> None:
    seen = set()

    def planned(module: nn.Module, shape: tuple[int, ...], requirements: Requirements) -> Timing:
        seen.add(requirements)
        return made_up(table([[100, 10, 20, 30, 40]]))(module, shape, requirements)

    planner(planned)
    requirements = Requirements(limits=Limits(upload_bytes=300_000))
    choose_ranks(chain(1), Budget(300.0, requirements), SHAPE, layers=["0"])
    assert seen == {requirements}


def test_the_report_prints_as_a_table(chosen: Callable[[float], RankReport]) -> None:
    report = chosen(0.65)
    header, *rows, whole, budget = str(report).splitlines()
    assert header.split() == ["layer", "rank", "of", "loss", "ms", "before", "ms"]
    assert [row.split()[0] for row in rows] == ["0", "2"]
    assert f"{report.milliseconds:.4g}" in whole
    assert str(report.plans) in budget
    assert len({len(line) for line in (header, *rows, whole)}) == 1
