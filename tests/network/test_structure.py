"""Structure found again in maps that were written out: the same map, of as few stencils as its operator has."""

import numpy as np
import pytest
from planning import dense_matrix, random_map
from random_networks import convolution, dense

from heinfer.network.linear_map import LinearMap
from heinfer.network.operators import AveragePool, Convolution
from heinfer.network.structure import structured

RNG = np.random.default_rng(1)
NUMBERED = np.arange(4 * 6 * 6).reshape(4, 6, 6)
SHUFFLED = NUMBERED.reshape(1, 2, 2, 6, 6).transpose(0, 3, 1, 4, 2).reshape(1, 12, 12)


def written_out(linear: LinearMap) -> LinearMap:
    entries = linear.entries
    return LinearMap.from_entries(
        linear.in_shape, linear.out_shape, entries.rows, entries.cols, entries.values, linear.bias
    )


def gathered(index: np.ndarray) -> LinearMap:
    held = np.flatnonzero(index.reshape(-1) >= 0)
    return LinearMap.from_entries((4, 6, 6), index.shape, held, index.reshape(-1)[held], np.ones(held.size))


CASES = {
    "convolution": (written_out(convolution(RNG, 4, 3, 3, 2, 1).linear_map((4, 6, 6))), 1, 4 * 3 * 9),
    "pool": (written_out(AveragePool((2, 2), (2, 2)).linear_map((4, 6, 6))), 1, 4),
    "dense": (written_out(dense(RNG, 144, 5).linear_map((4, 6, 6))), 1, 5 * 144),
    "slice": (gathered(NUMBERED[1:3, ::2, 1:]), 1, 2),
    "flip": (gathered(NUMBERED[::-1, ::-1]), 1, 4),
    "pad": (gathered(np.pad(NUMBERED, ((0, 1), (1, 1), (2, 0)), constant_values=-1)), 1, 4),
    "reflect": (gathered(np.pad(NUMBERED, ((0, 0), (2, 2), (2, 2)), mode="reflect")), 1, 4),
    "upsampling": (gathered(NUMBERED.repeat(3, axis=1).repeat(2, axis=2)), 1, 4),
    "pixel shuffle": (gathered(SHUFFLED), 4, 4),
    "flatten": (gathered(NUMBERED.reshape(-1)), 1, 4),
}


@pytest.mark.parametrize("case", CASES)
def test_a_map_that_was_written_out_has_its_structure_again(case: str) -> None:
    linear, stencils, weights = CASES[case]
    found = structured(linear)
    assert np.array_equal(dense_matrix(found), dense_matrix(linear))
    assert np.array_equal(found.reads, linear.reads)
    assert len(found.stencils) == stencils
    assert sum(stencil.weights.size for stencil in found.stencils) == weights


def test_what_has_no_structure_stays_as_it_is() -> None:
    shape = (4, 6, 6)
    transposed = gathered(NUMBERED.transpose(0, 2, 1))
    scattered = random_map(RNG, 144, 144, 0.1)
    scattered = LinearMap(shape, shape, scattered.stencils, scattered.bias)
    for linear in (transposed, scattered):
        assert structured(linear) is linear


def test_structured_maps_multiply_out_to_kernels() -> None:
    """A permutation that is written out does not make a convolution's entries be."""
    conv = Convolution(RNG.normal(size=(8, 4, 3, 3)), RNG.normal(size=8), padding=(1, 1)).linear_map((4, 6, 6))
    flipped = gathered(NUMBERED[::-1])
    product = structured(flipped).then(conv)
    assert [stencil.weights.size for stencil in product.stencils] == [8 * 4 * 9]
    np.testing.assert_allclose(dense_matrix(product), dense_matrix(conv) @ dense_matrix(flipped))
