"""Objectives, limits and batches: what a user may ask of a plan."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_networks import chain, circuit_of, convolution, dense, networks, polynomial, slots_for
from rings import tiny_parameters

from heinfer.circuit.counts import Counts, count_circuit
from heinfer.circuit.interpret import run
from heinfer.circuit.validate import validate_structure
from heinfer.costs.tables import cost_table
from heinfer.errors import PlanError, SettingError
from heinfer.formats.frames import ciphertexts_length, keys_length
from heinfer.network.folding import fold
from heinfer.network.ir import Network
from heinfer.network.operators import Flatten
from heinfer.planner.parameters import choose_parameters
from heinfer.planner.plan import Plan
from heinfer.planner.requirements import (
    DEFAULT,
    Limits,
    Needs,
    Objective,
    Requirements,
    ciphertext_bytes,
    key_bytes,
    prices,
)
from heinfer.planner.search.search import plan_network

RNG = np.random.default_rng(0)
STRIDED = chain((1, 28, 28), convolution(RNG, 1, 8, 5, 2, 2), polynomial(RNG, 8), Flatten(), dense(RNG, 1568, 10))


@cache
def strided(requirements: Requirements = DEFAULT) -> Plan:
    return plan_network(fold(STRIDED), requirements=requirements)


def counts(plan: Plan) -> Counts:
    return count_circuit(circuit_of(plan))


def keys(plan: Plan) -> int:
    return len(circuit_of(plan).steps()) + 1


def assert_runs_in_batches(network: Network, plan: Plan, images: int) -> None:
    """Every image of every batch gets its own result, though the others are in the same slots."""
    circuit = circuit_of(plan)
    validate_structure(circuit)
    x = np.random.default_rng(1).normal(size=(images, *network.input_shape))
    scores = plan.output.unpack(run(circuit, plan.input.pack(plan.in_batches(x))))
    expected = network(x)
    got = scores.reshape(-1, *network.output_shape)[:images]
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max())
    assert not plan.output.has_free_slots


# Batches -------------------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(networks(most=3, side=6), st.sampled_from([2, 4]), st.integers(1, 6))
def test_a_batch_gives_every_image_its_own_result(network: Network, batch: int, images: int) -> None:
    folded = fold(network)
    ring = tiny_parameters(2 * batch * slots_for(folded), (28,) + (26,) * len(folded.nodes))
    assert_runs_in_batches(network, plan_network(folded, ring, Requirements(batch=batch)), images)


def test_a_batch_may_leave_an_image_fewer_slots_than_it_has_pixels() -> None:
    plan = strided(Requirements(batch=64))
    assert plan.parameters.slots // 64 < 28 * 28
    assert plan.input.shape == (64, 1, 28, 28)
    assert_runs_in_batches(STRIDED, plan, 3)


@pytest.mark.parametrize("batch", [0, 3, -2])
def test_a_batch_is_a_power_of_two(batch: int) -> None:
    with pytest.raises(SettingError, match=f"a power of two of images, not {batch}"):
        Requirements(batch=batch)


def test_throughput_takes_the_batch_of_the_least_time_an_image() -> None:
    best = strided(Requirements(objective=Objective.THROUGHPUT, batch=64))
    cost = cost_table(best.parameters.ring_degree)
    singles = [strided(Requirements(batch=batch)) for batch in (1, 4, 16, 64)]
    assert best.price(cost) / best.batch == min(plan.price(cost) / plan.batch for plan in singles)
    assert best.batch > 1


def test_throughput_passes_over_batches_that_break_a_limit() -> None:
    limits = Limits(upload_bytes=4 * ciphertext_bytes(choose_parameters(3), 3))
    best = strided(Requirements(objective=Objective.THROUGHPUT, batch=64, limits=limits))
    assert best.input.ciphertexts <= 4
    with pytest.raises(PlanError, match="limit upload_bytes = 1000"):
        strided(Requirements(objective=Objective.THROUGHPUT, batch=4, limits=Limits(upload_bytes=1000)))


# Objectives and prices -----------------------------------------------------------------------------


def test_key_switches_as_the_objective_are_no_more_than_with_time() -> None:
    fewest = strided(Requirements(objective=Objective.KEY_SWITCHES))
    assert counts(fewest).key_switches <= counts(strided()).key_switches


def test_dearer_keys_are_fewer() -> None:
    plans = [strided(Requirements(key_price=price)) for price in (0.0, 4.0, 400.0)]
    assert keys(plans[0]) >= keys(plans[1]) >= keys(plans[2])
    assert keys(plans[0]) > keys(plans[2])


def test_a_negative_price_is_refused() -> None:
    with pytest.raises(SettingError, match="price of a key must not be negative, got -1"):
        Requirements(key_price=-1)


def test_key_switches_cost_one_and_time_breaks_ties() -> None:
    ring = choose_parameters(6)
    counted = prices(Requirements(objective=Objective.KEY_SWITCHES), ring, 6)
    assert counted.operations("rotation", 1) == counted.operations("relinearize", 6) == 1
    assert 0 < counted.operations("hma", 6) < 1e-4
    assert counted.key < 1e-4
    assert counted.upload < 1e-2


# Limits --------------------------------------------------------------------------------------------


def test_an_upload_limit_is_kept_and_costs_rotations() -> None:
    most = ciphertext_bytes(choose_parameters(3), 3)
    free, limited = strided(), strided(Requirements(limits=Limits(upload_bytes=most)))
    assert limited.input.ciphertexts == 1
    assert counts(limited).key_switches >= counts(free).key_switches


@pytest.mark.parametrize("limit", ["key_bytes", "upload_bytes", "memory_bytes"])
def test_a_limit_that_nothing_keeps_is_named_with_what_would_do(limit: str) -> None:
    with pytest.raises(PlanError, match=rf"limit {limit} = 1000: .* less than (\d+); raise") as caught:
        strided(Requirements(limits=Limits(**{limit: 1000})))
    enough = int(str(caught.value).rpartition("less than ")[2].split(";")[0])
    assert enough > 1000


def test_needs_name_the_limit_they_exceed() -> None:
    needs = Needs(key_bytes=10, upload_bytes=20, memory_bytes=30)
    assert needs.exceeded(Limits()) is None
    assert needs.exceeded(Limits(10, 20, 30)) is None
    assert needs.exceeded(Limits(upload_bytes=19)) == "upload_bytes"


def test_bytes_are_those_of_the_frames() -> None:
    ring = choose_parameters(6)
    lengths = [ciphertexts_length(ring, count=count, level=5, seeded=True) for count in (1, 2)]
    assert lengths[1] - lengths[0] == pytest.approx(ciphertext_bytes(ring, 5), rel=1e-3)
    lengths = [keys_length(ring, dict.fromkeys(range(count), 6)) for count in (1, 2)]
    assert lengths[1] - lengths[0] == pytest.approx(key_bytes(ring), rel=1e-3)
