"""Published methods as policies: that they count what the methods count."""

from functools import cache
from math import log2

import pytest
from published import act, by_name, conv, factorized, fc, under
from random_networks import (
    chain,
    circuit_of,
)

from heinfer.baselines.names import Policy
from heinfer.baselines.planning import count_policy, plan_policy
from heinfer.circuit.counts import count_circuit
from heinfer.circuit.ir import Kind
from heinfer.costs.cost import Cost
from heinfer.lowering.lower import lower
from heinfer.network.folding import fold
from heinfer.network.ir import Network
from heinfer.network.operators import Flatten, Square
from heinfer.planner.plan import Plan

# Counts of single kernels --------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "taps", "copies"), [(1, 3, 8), (2, 5, 4), (4, 3, 2), (8, 4, 1)])
def test_a_first_convolution_is_a_scalar_product_a_tap_and_a_rotation_a_channel(
    channels: int, taps: int, copies: int
) -> None:
    network = chain(
        (1, 7 + taps, 7 + taps), conv(1, channels, taps), Square(), Flatten(), fc(64 * channels, 2), Square(), fc(2, 2)
    )
    plan = under(Policy.LOLA, network, 512)
    assert plan.input.ciphertexts == taps**2
    assert by_name(plan)["convolution0"] == (channels - 1 + log2(copies), channels * taps**2)


@pytest.mark.parametrize(("inputs", "outputs", "slots"), [(16, 8, 64), (32, 8, 64), (32, 20, 256), (4, 100, 32)])
def test_stacked_rows_are_rotate_and_sum_over_one_copy_and_a_rotation_to_interleave(
    inputs: int, outputs: int, slots: int
) -> None:
    plan = under(Policy.LOLA, chain((inputs,), fc(inputs, outputs), Square(), fc(outputs, 3)), slots)
    ciphertexts = -(-outputs * inputs // slots)
    layers = by_name(plan)
    assert layers["dense0"] == (ciphertexts * log2(inputs), ciphertexts)
    assert layers["dense0: interleave"][1] == ciphertexts
    moved = ciphertexts - -(-outputs // slots)  # one stays in each ciphertext of the result
    assert layers["dense0: interleave"][0] == moved
    assert layers["dense2"] == (3 * log2(slots), 3 * -(-outputs // slots))


def test_rows_without_copies_are_complete_in_every_slot_and_masked_in_place() -> None:
    plan = under(Policy.LOLA, chain((40,), fc(40, 6), Square(), fc(6, 3)), 64)
    assert by_name(plan) == {"dense0": (6 * 6, 6), "dense0: mask": (0, 6), "dense2": (3 * 6, 3)}


@pytest.mark.parametrize(("c_in", "kernel", "rank", "c_out"), [(4, 2, 1, 3), (4, 4, 2, 8), (8, 2, 3, 5)])
def test_ffconv_takes_as_many_rotations_as_its_closed_form(c_in: int, kernel: int, rank: int, c_out: int) -> None:
    plan = under(Policy.FFCONV, factorized(c_in, kernel, rank, c_out), 2048)
    outputs = rank * (11 - kernel) ** 2
    assert by_name(plan) == {
        "convolution0": (c_in - 1, 9 * c_in),
        "convolution2": (outputs * log2(c_in * kernel**2), outputs),
        "convolution2: mask": (0, outputs),
        "convolution3": (0, rank * c_out),
        "dense6": (3 * log2(2048), 3 * c_out),
    }


@pytest.mark.parametrize(("c_in", "kernel", "rotations"), [(3, 3, 2 + 2 + 2), (5, 3, 3 + 2 + 2), (4, 5, 2 + 3 + 3)])
def test_a_window_that_is_no_power_of_two_is_padded_along_each_axis(c_in: int, kernel: int, rotations: int) -> None:
    plan = under(Policy.FFCONV, factorized(c_in, kernel, 1, 2), 2048)
    assert (
        by_name(plan)["convolution2"][0] == rotations * (11 - kernel) ** 2 > log2(c_in * kernel**2) * (11 - kernel) ** 2
    )


def test_channels_in_several_ciphertexts_are_added_up_before_they_are_rotated() -> None:
    plan = under(Policy.FFCONV, factorized(8, 4, 1, 2), 256)  # 4 blocks of 8 x 8 to a ciphertext
    assert by_name(plan)["convolution2"] == (7**2 * log2(4 * 4**2), 2 * 7**2)


def test_a_1x1_convolution_between_channels_is_scalar() -> None:
    circuit = lower(under(Policy.FFCONV, factorized(4, 2, 2, 8), 512))
    number = [layer.name for layer in circuit.layers].index("convolution3")
    ops = [op for op in circuit.ops if op.layer == number]
    factors = [circuit.constants[op.constant] for op in ops if op.kind is Kind.MULTIPLY_PLAIN]
    assert {factor.shape for factor in factors} == {(1,)}


def test_between_two_ffconvs_channels_are_packed_densely() -> None:
    pair = [conv(4, 2, 3, 1, 1), conv(2, 4, 1), act(4)]
    network = chain((1, 8, 8), conv(1, 4, 3, 1, 1), act(4), *pair, *pair, Flatten(), fc(256, 3))
    layers = by_name(under(Policy.FFCONV, network, 256))
    assert (layers["convolution3"], layers["convolution6"]) == ((3, 8), (0, 8))


def test_lola_multiplies_out_what_ffconv_factorizes() -> None:
    network = factorized(4, 2, 2, 8)
    plain = chain((1, 8, 8), conv(1, 4, 3, 1, 1), act(4), conv(4, 8, 2, 1, 1), act(8), Flatten(), fc(648, 3))
    pair, one = (by_name(under(Policy.LOLA, n, 1024)) for n in (network, plain))
    assert list(pair.values()) == list(one.values())
    assert list(pair) == [
        "convolution0",
        "convolution2+convolution3",
        "convolution2+convolution3: interleave",
        "dense6",
    ]


# Reference networks --------------------------------------------------------------------------------


@cache
def reference(name: str) -> Network:
    """The structure of a reference network, with random weights."""
    first = [conv(1, 8, 5, 2, 2), act(8)]
    last = [act(32), Flatten(), fc(1568, 10)]
    match name:
        case "lola-mnist":
            return chain((1, 28, 28), conv(1, 5, 5, 2, 1), act(5), Flatten(), fc(845, 100), act(100), fc(100, 10))
        case "mnist-plain":
            return chain((1, 28, 28), *first, conv(8, 32, 5, 2, 2), *last)
        case _:
            return chain((1, 28, 28), *first, conv(8, 4, 5, 2, 2), conv(4, 32, 1), *last)


@pytest.mark.parametrize(
    ("name", "policy", "ring", "levels", "rotations", "key_switches", "hma", "keys"),
    [
        ("lola-mnist", Policy.LOLA, 8192, 6, 400, 402, 185, 15),
        ("lola-mnist", Policy.FFCONV, 8192, 6, 400, 402, 185, 15),
        ("mnist-plain", Policy.LOLA, 8192, 6, 9535, 9537, 1778, 14),
        ("mnist-ffconv", Policy.LOLA, 8192, 6, 9535, 9537, 1778, 14),
        ("mnist-ffconv", Policy.FFCONV, 16384, 7, 1901, 1934, 1040, 14),
    ],
)
def test_how_many_operations_a_reference_network_takes(
    name: str, policy: Policy, ring: int, levels: int, rotations: int, key_switches: int, hma: int, keys: int
) -> None:
    plan = plan_policy(fold(reference(name)), policy)
    circuit = circuit_of(plan)
    counts = count_circuit(circuit)
    assert (plan.parameters.ring_degree, len(plan.steps)) == (ring, levels)
    assert (counts.rotations, counts.key_switches, counts.hma) == (rotations, key_switches, hma)
    assert (len(circuit.steps()), plan.input.ciphertexts) == (keys, 25)


def test_at_the_slots_that_lola_has_its_network_takes_the_rotations_of_its_code_but_those_for_copies() -> None:
    """BFV gives LoLa 8192 slots at N = 8192, where 4 + 7 + 13 * 10 + 12 + 10 * 13 rotations are called for."""
    plan = under(Policy.LOLA, reference("lola-mnist"), 8192)
    assert by_name(plan) == {
        "convolution0": (4 + 3, 125),  # seven copies one after the other there, three doublings here
        "dense3": (130, 13),
        "dense3: interleave": (12, 13),
        "dense5": (130, 10),
    }


# Counting without a plan ---------------------------------------------------------------------------


def same_counts(counted: Cost, plan: Plan) -> bool:
    circuit = circuit_of(plan)
    counts, found = count_circuit(circuit), counted.counts
    return (
        (found.rotations, found.key_switches, found.hma, found.ct_ct_mults)
        == (counts.rotations, counts.key_switches, counts.hma, counts.ct_ct_mults)
        and (counted.key_levels.keys() - {0}, counted.input_ciphertexts) == ({*circuit.steps()}, plan.input.ciphertexts)
        and (counted.parameters, counted.input_level) == (plan.parameters, plan.input_level)
    )


@pytest.mark.parametrize("policy", [Policy.LOLA, Policy.FFCONV])
def test_counting_is_exact_where_every_step_is_planned_whole(policy: Policy) -> None:
    folded = fold(reference("mnist-ffconv"))
    counted = count_policy(folded, policy)
    assert same_counts(counted, plan_policy(folded, policy))
    assert counted.sampled == {}
    assert counted.predicted["tenseal"] > counted.predicted["native"] > 1000


def test_counting_says_what_it_sampled() -> None:
    folded = fold(reference("mnist-ffconv"))
    for policy, rows, others in ((Policy.FFCONV, 196, 0), (Policy.LOLA, 784, 20)):
        exact, sampled = count_policy(folded, policy), count_policy(folded, policy, sample=49)
        assert sorted(sampled.sampled.values()) == [(49, rows), (49, rows)]
        some, all_ = sampled.counts, exact.counts
        assert (some.hma, some.key_switches - some.rotations) == (all_.hma, all_.key_switches - all_.rotations)
        assert all_.rotations - others <= some.rotations <= all_.rotations
        assert sampled.predicted == pytest.approx(exact.predicted, rel=0.01)


def test_a_network_of_a_hundred_thousand_rotations_is_counted() -> None:
    """LoLa's CIFAR-10 network with a tenth of the channels in its first layer, which is quick to fold."""
    operators = [conv(3, 8, 8, 2, 1), Square(), conv(8, 163, 6, 2, 2), Square(), Flatten(), fc(7987, 10)]
    counted = count_policy(fold(chain((3, 32, 32), *operators)), Policy.LOLA, sample=64)
    assert counted.parameters.ring_degree == 8192
    assert counted.sampled == {"convolution2": (64, 3994), "convolution2: interleave": (64, 3994)}
