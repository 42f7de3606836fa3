"""The rings in which a network may be evaluated, each with the levels to use of it."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from heinfer.ckks.parameters import Parameters
from heinfer.network.ir import INPUT, Network
from heinfer.network.operators import Chebyshev
from heinfer.planner.parameters import choose_parameters, smallest_parameters, wider_parameters
from heinfer.planner.requirements import Requirements
from heinfer.planner.search.merging import Merging
from heinfer.planner.series import depth_of


def rings(
    merging: Merging, network: Network, parameters: Parameters | None, requirements: Requirements
) -> Iterator[tuple[Parameters, int]]:
    """Yield rings with the levels to use of them: the smallest secure ones, and the next where a tensor overflows."""
    if parameters:
        yield from ((parameters, levels) for levels in merging.levels if levels <= parameters.top_level)
        return
    largest, bits = max(prod(shape) for shape in (network.input_shape, *network.shapes)), requirements.prime_bits
    largest *= requirements.batch
    first = choose_parameters(merging.levels[0], prime_bits=bits)  # PlanError when even the shallowest plan has no ring
    for levels in merging.levels:
        ring: Parameters | None = first if levels == merging.levels[0] else smallest_parameters(levels, prime_bits=bits)
        if ring:
            yield ring, levels
            ring = wider_parameters(ring, bits) if largest > ring.slots else None
        if ring:
            yield ring, levels


def too_deep(network: Network, parameters: Parameters) -> str:
    """Which layer is the first that given parameters have no level for, and the way out."""
    depth = _depths(network)
    late = next((i for i, d in enumerate(depth) if d > parameters.top_level), len(depth) - 1)
    return (
        f"{network.nodes[late].name} is layer {depth[late]} of {max(depth)} that take a level each, and the "
        f"parameters give {parameters.top_level}: use a larger ring degree than {parameters.ring_degree}, "
        "or a network with fewer layers"
    )


def _depths(network: Network) -> list[int]:
    """The number of every layer along the longest way to it, a level a layer."""
    found = {INPUT: 0}
    for position, reads in enumerate(network.reads):
        operator = network.nodes[position].operator
        depth = depth_of(operator.degree) if isinstance(operator, Chebyshev) else 1
        found[position] = depth + max(found[tensor] for tensor in reads)
    return [found[position] for position in range(len(network.nodes))]
