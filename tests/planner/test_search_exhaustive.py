"""The search beside the cheapest of all plans that it may choose from, on chains small enough to try them all."""

from math import inf

import numpy as np
import pytest
from every_plan import least_price, price_of
from random_networks import Array, chain, convolution, dense, slots_for
from rings import tiny_parameters

from heinfer.errors import PlanError, ShapeError
from heinfer.network.folding import fold
from heinfer.network.ir import Network
from heinfer.network.operators import AveragePool, Flatten, Operator, Square
from heinfer.planner.requirements import MILLISECONDS_A_KEY, Objective, Requirements
from heinfer.planner.search.search import plan_network

SIZE = 4096
"""Slots at which a key has the price that users pay; with fewer, it is worth as much less as operations are."""


def small_chain(rng: np.random.Generator, side: int) -> Network:
    """Two or three convolutions, pools and dense layers, some with a square after them; at most 6 channels."""
    maps = int(rng.integers(2, 4))
    first = int(rng.integers(1, 4)), int(rng.integers(3, side + 1)), int(rng.integers(3, side + 1))
    shape: tuple[int, ...] = first
    operators: list[Operator] = []
    while maps:
        new: list[Operator] = [_layer(rng, shape, last=maps == 1)]
        if isinstance(new[0], Flatten):
            new.append(dense(rng, int(np.prod(shape)), int(rng.integers(2, 9))))
        if maps > 1 and rng.random() < 0.6:
            new.append(Square())
        try:
            shape = chain(shape, *new).output_shape
        except ShapeError:  # a kernel larger than what is left
            continue
        operators += new
        maps -= 1
    return fold(chain(first, *operators))


def _layer(rng: np.random.Generator, shape: tuple[int, ...], *, last: bool) -> Operator:
    match rng.choice(["convolution", "dense"] if last else ["convolution", "convolution", "pool"]):
        case "dense":
            return Flatten()
        case "pool":
            return AveragePool((2, 2), (2, 2))
    c_out, kernel, stride, padding = (int(rng.integers(*bounds)) for bounds in ((1, 7), (1, 4), (1, 3), (0, 2)))
    return convolution(rng, shape[0], c_out, kernel, stride, padding)


def times_the_least(rng: np.random.Generator, side: int, room: list[int]) -> float:
    """The price of the plan that the search finds for a random chain, as a multiple of the least.

    Args:
        side: of the largest planes.
        room: how many of them a ciphertext may hold.
    """
    network = small_chain(rng, side)
    slots = int(rng.choice(room)) * slots_for(network)
    parameters = tiny_parameters(2 * slots, (28,) + (26,) * len(network.nodes))
    requirements = Requirements(
        objective=Objective.KEY_SWITCHES if rng.random() < 0.3 else Objective.TIME,
        backend=str(rng.choice(["tenseal", "native"])),
        key_price=MILLISECONDS_A_KEY * slots / SIZE,
    )
    try:
        plan = plan_network(network, parameters, requirements)
    except PlanError:
        assert least_price(network, parameters, requirements) == inf
        return 1.0
    price = price_of(plan, requirements)
    return price / least_price(network, parameters, requirements, most=price * (1 + 1e-9))


def distances(count: int, *, side: int, room: list[int], seed: int) -> Array:
    rng = np.random.default_rng(seed)
    found = np.array([times_the_least(rng, side, room) for _ in range(count)])
    assert found.min() > 1 - 1e-9  # the plan of the search is one of them all
    return found


def test_a_dearer_plan_of_more_levels_does_not_replace_one_of_fewer() -> None:
    """A convolution and a dense layer are cheapest multiplied out, and can be kept apart."""
    rng = np.random.default_rng(0)
    network = fold(chain((3, 7, 6), convolution(rng, 3, 1, 1), Flatten(), dense(rng, 42, 4)))
    requirements = Requirements(backend="native", key_price=MILLISECONDS_A_KEY * 256 / SIZE)
    one, two = (plan_network(network, tiny_parameters(512, bits), requirements) for bits in ((28, 26), (28, 26, 26)))
    assert (one.input_level, two.input_level) == (1, 1)
    assert price_of(two, requirements) == pytest.approx(price_of(one, requirements))


def test_the_search_finds_the_cheapest_plan_of_nearly_every_small_chain() -> None:
    found = distances(20, side=5, room=[1, 2], seed=0)
    assert found.max() < 1.04
    assert (found < 1 + 1e-9).mean() >= 0.9


@pytest.mark.slow
def test_the_search_finds_plans_within_four_hundredths_of_the_cheapest_of_many_chains() -> None:
    found = distances(200, side=8, room=[1, 2, 4], seed=1)
    assert found.max() < 1.04
    assert (found < 1 + 1e-9).mean() >= 0.94
