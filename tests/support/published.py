"""Networks, and plans of them under a policy at rings too small to be secure."""

from __future__ import annotations

import numpy as np
from random_networks import chain, circuit_of, convolution, dense, polynomial
from rings import tiny_parameters

from heinfer.baselines.names import Policy
from heinfer.baselines.planning import plan_policy
from heinfer.circuit.counts import count_layers
from heinfer.errors import PlanError
from heinfer.network.folding import fold
from heinfer.network.ir import Network
from heinfer.network.operators import Convolution, Dense, Flatten, Polynomial
from heinfer.planner.plan import Plan
from heinfer.planner.requirements import Requirements


def conv(c_in: int, c_out: int, kernel: int, stride: int = 1, padding: int = 0) -> Convolution:
    return convolution(np.random.default_rng(0), c_in, c_out, kernel, stride, padding)


def act(channels: int) -> Polynomial:
    return polynomial(np.random.default_rng(1), channels)


def fc(inputs: int, outputs: int) -> Dense:
    return dense(np.random.default_rng(2), inputs, outputs)


def under(policy: Policy, network: Network, slots: int, batch: int = 1) -> Plan:
    """A plan of a network at a ring of so many slots an image, which no security check has seen."""
    folded = fold(network)
    ring = tiny_parameters(2 * slots * batch, (28,) + (26,) * 2 * len(folded.nodes))
    return plan_policy(folded, policy, ring, Requirements(batch=batch))


def with_room(policy: Policy, network: Network, slots: int, batch: int = 1) -> Plan:
    """A plan at so many slots an image, or twice or four times as many where an output is larger than its input."""
    while True:
        try:
            return under(policy, network, slots, batch)
        except PlanError:
            assert slots < 2048
            slots *= 2


def by_name(plan: Plan) -> dict[str, tuple[int, int]]:
    """Rotations and HMAs of every linear layer of the plan's circuit."""
    circuit = circuit_of(plan)
    counts = zip(circuit.layers, count_layers(circuit), strict=True)
    return {layer.name: (c.rotations, c.hma) for layer, c in counts if layer.kernel != "square"}


def factorized(c_in: int, kernel: int, rank: int, c_out: int) -> Network:
    """A convolution, an FFConv of stride 1 on 8 x 8, and a dense layer."""
    first, second = conv(1, c_in, 3, 1, 1), conv(c_in, rank, kernel, 1, 1)
    size = 8 + 2 - kernel + 1
    return chain(
        (1, 8, 8), first, act(c_in), second, conv(rank, c_out, 1), act(c_out), Flatten(), fc(c_out * size**2, 3)
    )
