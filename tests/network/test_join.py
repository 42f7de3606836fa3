"""Index arrays: order without compares."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heinfer.network.join import stable_order


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(0, 300), st.sampled_from([1, 7, 1 << 16, (1 << 16) + 1, 1 << 24]))
def test_the_order_is_that_of_a_stable_sort(seed: int, size: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    numbers = rng.choice(rng.integers(count, size=max(1, size // 3)), size)  # with equals
    assert np.array_equal(stable_order(numbers, count), np.argsort(numbers, kind="stable"))


@pytest.mark.parametrize("count", [1 << 16, (1 << 16) + 1])
def test_the_largest_number_of_16_bits_is_no_smaller_than_others(count: int) -> None:
    numbers = np.array([count - 1, 0, count - 1, 1])
    assert stable_order(numbers, count).tolist() == [1, 3, 0, 2]
