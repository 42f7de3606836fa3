"""Falcon as a policy: its plans compute block-circulant networks, and take the rotations that the method takes."""

import copy
from math import log2

import numpy as np
import pytest
import torch
from planning import assert_adds_each_term_once, assert_result_is_true
from published import by_name, under
from random_networks import assert_runs, circuit_of
from torch import nn

from heinfer.baselines.names import Policy
from heinfer.baselines.planning import count_policy, plan_policy
from heinfer.circuit.counts import count_circuit
from heinfer.frontend import trace
from heinfer.network.folding import fold
from heinfer.network.ir import Network
from heinfer.nn import BlockCirculantConv2d, BlockCirculantLinear, PolyActivation
from heinfer.planner.kernel.diagonals import DiagonalSet
from heinfer.planner.plan import LinearStep
from heinfer.zoo.registry import reference


def network(shape: tuple[int, ...], *layers: nn.Module) -> tuple[nn.Module, Network]:
    torch.manual_seed(0)
    module = nn.Sequential(*copy.deepcopy(layers)).double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() == 1:
                parameter.normal_()
    return module, trace(module, shape)


def first(channels: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(1, channels, 3, stride, 1), nn.BatchNorm2d(channels), PolyActivation(channels)]


NETWORKS = {
    "real frequencies alone": (512, [*first(4), BlockCirculantConv2d(4, 6, 3, 2, 1, 1), PolyActivation(6)]),
    "blocks that are not full": (512, [*first(5), BlockCirculantConv2d(5, 6, 3, 4, 2, 1), PolyActivation(6)]),
    "several ciphertexts": (256, [*first(9), BlockCirculantConv2d(9, 10, 3, 4, 2, 1), PolyActivation(10)]),
    "a kernel as large as the planes": (1024, [*first(4), BlockCirculantConv2d(4, 8, 8, 4, 2, 3), PolyActivation(8)]),
    "dense": (256, [*first(3, 2), nn.Flatten(), BlockCirculantLinear(48, 10, 4), PolyActivation(10)]),
    "dense, from pixels": (256, [nn.Flatten(), BlockCirculantLinear(64, 10, 8), PolyActivation(10)]),
    "one after the other": (
        256,
        [
            *(nn.Flatten(), nn.Linear(64, 9), PolyActivation(9), BlockCirculantLinear(9, 7, 2), PolyActivation(7)),
            *(BlockCirculantLinear(7, 12, 4), PolyActivation(12), BlockCirculantLinear(12, 12, 4)),
        ],
    ),
    "a pool before the transform, a plain convolution after": (
        512,
        [
            *(*first(5), BlockCirculantConv2d(5, 6, 3, 4, 1, 1), nn.BatchNorm2d(6), PolyActivation(6)),
            *(nn.AvgPool2d(2), BlockCirculantConv2d(6, 6, 3, 2, 1, 1), PolyActivation(6)),
            *(nn.Conv2d(6, 2, 3), PolyActivation(2)),
        ],
    ),
    "straight from the input": (256, [BlockCirculantConv2d(1, 4, 3, 4, 1, 1), PolyActivation(4)]),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("policy", Policy)
def test_a_plan_computes_what_torch_does(name: str, policy: Policy) -> None:
    slots, layers = NETWORKS[name]
    size = nn.Sequential(*layers, nn.Flatten()).eval()(torch.zeros(1, 1, 8, 8)).shape[1]
    module, traced = network((1, 8, 8), *layers, nn.Flatten(), nn.Linear(size, 3))
    x = torch.randn(4, 1, 8, 8, dtype=torch.float64)
    np.testing.assert_allclose(traced(x.numpy()), module(x).detach().numpy(), rtol=1e-5, atol=1e-5)
    assert_runs(traced, under(policy, traced, slots))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_step_adds_each_term_once_where_it_says(name: str) -> None:
    slots, layers = NETWORKS[name]
    _, traced = network((1, 8, 8), *layers)
    plan = under(Policy.FALCON, traced, slots)
    for step in plan.steps:
        if isinstance(step, LinearStep):
            assert isinstance(step.plan.diagonals, DiagonalSet)
            assert_adds_each_term_once(step.plan.diagonals)
            assert_result_is_true(step.plan.diagonals, 0)


@pytest.mark.parametrize(
    ("c_in", "c_out", "block", "kernel"), [(8, 8, 4, 4), (16, 8, 8, 2), (4, 12, 4, 2), (8, 8, 2, 4)]
)
def test_a_dot_product_gives_all_frequencies_of_a_block(c_in: int, c_out: int, block: int, kernel: int) -> None:
    layers = [*first(c_in), BlockCirculantConv2d(c_in, c_out, kernel, block), PolyActivation(c_out)]
    size = 8 - kernel + 1
    _, traced = network((1, 8, 8), *layers, nn.Flatten(), nn.Linear(c_out * size**2, 3))
    counts = by_name(under(Policy.FALCON, traced, 1024))
    rows = c_out // block * size**2
    turned = block > 2  # one rotation of the input, which all rows share
    assert counts["3.spectral"] == (rows * log2(c_in // block * kernel**2) + turned, rows * (1 + turned))
    assert counts["3.spectral: mask"] == (c_out // block - 1, rows)
    for transform in ("3.dft", "3.inverse"):  # k diagonals of one ciphertext as baby and giant steps
        assert counts[transform] == ({2: 1, 4: 2, 8: 4}[block], block)


def test_it_takes_fewer_rotations_the_larger_the_blocks() -> None:
    def rotations(block: int) -> int:
        layers = [*first(8), BlockCirculantConv2d(8, 8, 4, block), PolyActivation(8), nn.Flatten(), nn.Linear(200, 3)]
        _, traced = network((1, 8, 8), *layers)
        return count_circuit(circuit_of(under(Policy.FALCON, traced, 512))).rotations

    assert [rotations(block) for block in (2, 4, 8)] == sorted((rotations(b) for b in (2, 4, 8)), reverse=True)


def test_without_block_circulant_layers_it_is_dot_products_over_windows() -> None:
    _, traced = network((1, 8, 8), *first(4), nn.Conv2d(4, 3, 2), PolyActivation(3), nn.Flatten(), nn.Linear(147, 3))
    counts = by_name(under(Policy.FALCON, traced, 1024))
    assert counts["3"] == (3 * 49 * log2(4 * 2**2), 3 * 49)


def test_weights_never_matter() -> None:
    def counted(seed: int) -> list[object]:
        torch.manual_seed(seed)
        layers = [*first(5), BlockCirculantConv2d(5, 6, 3, 4, 2, 1), PolyActivation(6)]
        traced = trace(nn.Sequential(*layers).eval(), (1, 8, 8))
        return [(op.kind, op.args, op.step) for op in circuit_of(under(Policy.FALCON, traced, 512)).ops]

    assert counted(0) == counted(1)


@pytest.mark.parametrize(
    ("name", "policy", "ring", "levels", "rotations", "key_switches", "hma", "keys"),
    [("lola-mnist-falcon", Policy.FALCON, 16384, 8, 160, 162, 270, 20)],
)
def test_how_many_operations_a_reference_network_takes(
    name: str, policy: Policy, ring: int, levels: int, rotations: int, key_switches: int, hma: int, keys: int
) -> None:
    torch.manual_seed(0)
    folded = fold(trace(reference(name).build().eval(), reference(name).data.shape))
    plan, counted = plan_policy(folded, policy), count_policy(folded, policy).counts
    circuit = circuit_of(plan)
    counts = count_circuit(circuit)
    assert (plan.parameters.ring_degree, len(plan.steps)) == (ring, levels)
    assert (counts.rotations, counts.key_switches, counts.hma, len(circuit.steps())) == (
        rotations,
        key_switches,
        hma,
        keys,
    )
    assert (counted.rotations, counted.key_switches, counted.hma) == (rotations, key_switches, hma)


def test_a_sample_of_its_rows_counts_as_all_of_them() -> None:
    layers = [*first(5), BlockCirculantConv2d(5, 8, 3, 4, 1, 1), PolyActivation(8), nn.Flatten(), nn.Linear(512, 3)]
    _, traced = network((1, 8, 8), *layers)
    folded = fold(traced)
    exact, sampled = count_policy(folded, Policy.FALCON), count_policy(folded, Policy.FALCON, sample=16)
    assert sampled.sampled == {"3.spectral": (16, 128), "3.spectral: mask": (16, 128)}
    assert abs(sampled.counts.rotations - exact.counts.rotations) <= 20
    assert sampled.counts.hma == exact.counts.hma
