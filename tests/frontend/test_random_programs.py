"""Random networks of the whole operator set: what is traced and what is folded equals torch in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from random_programs import KINDS, Program, program

from heinfer.frontend import trace
from heinfer.frontend.at_inference import at_inference
from heinfer.frontend.calls import name_of
from heinfer.frontend.exported import exported
from heinfer.frontend.table import OPERATORS
from heinfer.network.folding import fold

FEW, MANY = range(36), range(36, 236)
NEVER = {"size", "sym_size", "_assert_async"}
"""Sizes are numbers in a graph, and what is asserted of values are comparisons, which have no encrypted form."""


def require_equal(made: Program) -> None:
    x = made.inputs(4)
    with torch.no_grad():
        expected = made.module(x).numpy()
    network = trace(made.module, made.shape)
    for computed in (network, fold(network)):
        found = computed(x.numpy())
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= 1e-9 * np.abs(expected).max()


@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch, on even kernels and "same"
@pytest.mark.parametrize("seed", FEW)
def test_a_network_equals_torch(seed: int) -> None:
    require_equal(program(seed))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("seed", MANY)
def test_many_networks_equal_torch(seed: int) -> None:
    require_equal(program(seed))


def functions_of(made: Program) -> set[str]:
    """The names of all functions that a network calls."""
    with at_inference(made.module) as root:
        graph = exported(root, made.shape).graph
    return {name_of(node.target) for node in graph.nodes if hasattr(node.target, "_schema")}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_operator_of_the_table_is_in_some_network() -> None:
    found = set[str]().union(*(functions_of(program(seed)) for seed in MANY))
    table = {*OPERATORS.moves, *OPERATORS.rules}
    assert sorted(table - found - NEVER) == []
    assert not NEVER & found


def test_two_hundred_networks_begin_with_every_kind() -> None:
    assert len(KINDS) <= len(MANY)
