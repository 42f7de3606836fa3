"""One answer to what a network costs: of every reference network."""

import pytest
from test_costs import BACKENDS, assert_every_door_says_the_same

from heinfer.zoo import NETWORKS

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_door_says_the_same(name: str, backend: str) -> None:
    assert_every_door_says_the_same(name, backend)
