"""A plan that cannot be is refused before it is lowered, by the name of the step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from planning import plans_of, random_map, two_layers
from rings import tiny_parameters

from heinfer.errors import PlanError
from heinfer.layout.layout import FREE, Layout
from heinfer.layout.packings import cyclic_pack, dense_pack
from heinfer.lowering.circuits import circuit_of
from heinfer.network.ir import INPUT
from heinfer.planner.kernel.diagonals import DiagonalProblem
from heinfer.planner.plan import LinearStep, Plan, ProductStep
from heinfer.planner.requirements import Requirements
from heinfer.planner.validate import validate_plan

GOOD, _, _ = two_layers()
ONE, SQUARE, TWO = GOOD.steps


def steps(*changed: object) -> Plan:
    return replace(GOOD, steps=changed)


def test_a_good_plan_passes():
    validate_plan(GOOD)
    validate_plan(steps(ONE, ProductStep("product", 2, (0, 0)), TWO))


BAD = {
    "other slots": (replace(GOOD, single_input=cyclic_pack((4,), 4)), "the input has 4 slots, 8 / 1 are there"),
    "no steps": (steps(), "0 steps from level 3"),
    "more levels than there are": (replace(GOOD, input_level=4), "3 steps from level 4, the parameters give 1..3"),
    "a later step": (steps(replace(ONE, reads=(1,)), SQUARE, TWO), "one: it reads the steps (1,), and 0 come before"),
    "nothing": (steps(replace(ONE, reads=()), SQUARE, TWO), "one: it reads the steps ()"),
    "a level that is used up": (
        steps(ONE, replace(SQUARE, level=3), TWO),
        "square: it works at level 3, what it",
    ),
    "no level": (steps(ONE, SQUARE, replace(TWO, level=0)), "two: it works at level 0"),
    "another layout": (steps(ONE, SQUARE, replace(TWO, reads=(INPUT,))), "two: its kernel was planned for another"),
    "a square of two": (steps(ONE, replace(SQUARE, reads=(0, 0)), TWO), "square: a square reads one tensor, not 2"),
    "a product of one": (steps(ONE, ProductStep("twice", 2, (0,)), TWO), "twice: a product has two factors, not 1"),
    "factors apart": (
        steps(ONE, ProductStep("apart", 2, (0, 0), 1), TWO),
        "apart: its factors do not lie alike, rotated by 1",
    ),
    "factors of two shapes": (
        steps(ONE, ProductStep("unlike", 2, (0, INPUT)), TWO),
        "unlike: its factors do not lie alike, rotated by 0",
    ),
    "a dead step": (steps(ONE, SQUARE, replace(SQUARE, name="dead"), TWO), "dead: no step reads what it makes"),
    "scores that keep a level": (replace(GOOD, steps=(ONE, SQUARE)), "square: the scores end at level 1, not 0"),
}


@pytest.mark.parametrize("plan", BAD)
def test_a_plan_that_cannot_be_is_refused(plan):
    bad, why = BAD[plan]
    with pytest.raises(PlanError) as caught:
        circuit_of(bad, Requirements())
    assert why in str(caught.value)


def test_partial_sums_do_not_leave():
    rng = np.random.default_rng(0)
    target = Layout((1,), np.array([[0, *[FREE] * 7]]))
    problem = DiagonalProblem(random_map(rng, 2, 1, 1.0), dense_pack((2,), 8), target, (1,))
    step = LinearStep("one", plans_of(problem)[0], 1, (INPUT,))
    assert step.plan.target.has_free_slots
    with pytest.raises(PlanError, match="one: the scores leave partial sums in unused slots"):
        validate_plan(Plan(tiny_parameters(16, (28, 26)), 1, problem.source, "", (step,)))
