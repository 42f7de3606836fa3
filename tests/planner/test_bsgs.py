"""Baby and giant steps: every cover covers its shifts, with few rotations and keys."""

import numpy as np
import pytest
from exhaustive import fewest_rotations
from hypothesis import given, settings
from hypothesis import strategies as st

from heinfer.planner.kernel.bsgs import Cover, RotationTree, covers

quick = settings(max_examples=60, deadline=None)


@st.composite
def shift_sets(draw: st.DrawFn) -> tuple[frozenset[int], int]:
    """Random residues, or a pattern of progressions with a few shifts missing and a few more."""
    modulus = draw(st.sampled_from([8, 16, 32, 64, 256]))
    residues = st.integers(0, modulus - 1)
    if draw(st.booleans()):
        return frozenset(draw(st.lists(residues, min_size=1, max_size=12))), modulus
    steps = draw(st.lists(st.tuples(residues, st.integers(1, 4)), min_size=1, max_size=3))
    shifts = {draw(residues)}
    for step, length in steps:
        shifts = {(s + step * i) % modulus for s in shifts for i in range(length)}
    missing = draw(st.sets(st.sampled_from(sorted(shifts)), max_size=len(shifts) - 1 if len(shifts) < 4 else 3))
    return frozenset(shifts - missing | draw(st.sets(residues, max_size=2))), modulus


def assert_tree(tree: RotationTree, modulus: int) -> None:
    """Every node is its parent plus a step that is a rotation, parents come first, no node twice."""
    assert (tree.nodes[0], tree.parents[0], tree.steps[0]) == (0, -1, 0)
    assert len(set(tree.nodes)) == len(tree.nodes) == len(tree.parents) == len(tree.steps)
    for number in range(1, len(tree.nodes)):
        parent = tree.parents[number]
        assert 0 <= parent < number
        assert 0 < tree.steps[number] < modulus
        assert tree.nodes[number] == (tree.nodes[parent] + tree.steps[number]) % modulus


def assert_covers(cover: Cover, shifts: frozenset[int]) -> None:
    """Every shift is offset + baby + giant; every baby and giant is on the way to one that is used."""
    modulus = cover.modulus
    assert_tree(cover.babies, modulus)
    assert_tree(cover.giants, modulus)
    assert {(s + cover.offset) % modulus for s in cover.split} == {s % modulus for s in shifts}
    for shift, (baby, giant) in cover.split.items():
        assert shift == (cover.babies.nodes[baby] + cover.giants.nodes[giant]) % modulus
    assert {baby for baby, _ in cover.split.values()} == set(range(len(cover.babies.nodes)))
    assert {giant for _, giant in cover.split.values()} == set(range(len(cover.giants.nodes)))
    assert cover.rotations == len(cover.babies.nodes) + len(cover.giants.nodes) - 2
    assert cover.keys == set(cover.babies.steps[1:]) | set(cover.giants.steps[1:])


@quick
@given(shift_sets())
def test_every_shift_is_a_baby_plus_a_giant(case: tuple[frozenset[int], int]) -> None:
    shifts, modulus = case
    for cover in covers(shifts, modulus):
        assert_covers(cover, shifts)


@quick
@given(shift_sets())
def test_covers_trade_babies_for_giants(case: tuple[frozenset[int], int]) -> None:
    found = covers(*case)
    assert found[0].babies.rotations == 0 or len(found) == 1
    giants = [cover.giants.rotations for cover in found]
    assert giants == sorted(giants, reverse=True)


@quick
@given(shift_sets())
def test_no_cover_takes_more_rotations_than_there_are_shifts(case: tuple[frozenset[int], int]) -> None:
    shifts, modulus = case
    assert min(cover.rotations for cover in covers(shifts, modulus)) <= len(shifts) - 1


@quick
@given(shift_sets(), st.integers(1, 300))
def test_moving_all_shifts_changes_nothing_but_the_offset(case: tuple[frozenset[int], int], by: int) -> None:
    shifts, modulus = case
    here, there = covers(shifts, modulus), covers([s + by for s in shifts], modulus)
    assert [(c.babies, c.giants) for c in here] == [(c.babies, c.giants) for c in there]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([8, 12, 16]), st.data())
def test_a_small_set_is_covered_within_one_rotation_of_the_least(modulus: int, data: st.DataObject) -> None:
    shifts = data.draw(st.frozensets(st.integers(0, modulus - 1), min_size=1, max_size=7))
    found = min(cover.rotations for cover in covers(shifts, modulus))
    assert found - fewest_rotations(shifts, modulus) in (0, 1)


def taps(kernel: int, width: int = 16, step: int = 1, blocks: int = 1, block: int = 256) -> set[int]:
    """The shifts of a convolution over planes in rows of ``width``."""
    reach = range(-(kernel // 2), kernel - kernel // 2)
    return {step * (y * width + x) + block * b for b in range(blocks) for y in reach for x in reach}


@pytest.mark.parametrize(
    ("shifts", "rotations", "keys"),
    [
        pytest.param({5}, 0, 0, id="single"),
        pytest.param({5, 9}, 1, 1, id="two"),
        pytest.param(set(range(9)), 4, 2, id="9 in a row"),
        pytest.param(set(range(16)), 6, 2, id="16 in a row"),
        pytest.param(set(range(100)), 18, 2, id="100 in a row"),
        pytest.param(set(range(0, 4096, 256)), 6, 2, id="16 blocks"),
        pytest.param(taps(3), 4, 2, id="3x3"),
        pytest.param(taps(5), 8, 2, id="5x5"),
        pytest.param(taps(7), 12, 2, id="7x7"),
        pytest.param(taps(3, step=2), 4, 2, id="3x3 in gaps"),
        pytest.param(taps(3, blocks=2), 7, 3, id="3x3 from two blocks"),
        pytest.param(taps(3, blocks=4), 10, 4, id="3x3 from four blocks"),
        pytest.param(taps(3, blocks=16), 22, 5, id="3x3 from sixteen blocks"),
        pytest.param(taps(5, blocks=4), 18, 4, id="5x5 from four blocks"),
        pytest.param(taps(3) - {0}, 4, 2, id="3x3 without its middle"),
        pytest.param(taps(3) | {100}, 5, 3, id="3x3 and one apart"),
        pytest.param({1, 2, 4, 8, 16}, 4, 4, id="no pattern"),
    ],
)
def test_how_many_rotations_and_keys_a_pattern_takes(shifts: set[int], rotations: int, keys: int) -> None:
    found = covers(shifts, 4096)
    best = min(found, key=lambda cover: (cover.rotations, len(cover.keys)))
    assert (best.rotations, len(best.keys)) == (rotations, keys)


def test_a_star_reaches_the_same_nodes_with_a_key_each() -> None:
    chain = RotationTree((0, 5, 10, 15), (-1, 0, 1, 2), (0, 5, 5, 5))
    star = chain.as_star()
    assert_tree(star, 16)
    assert star.nodes == chain.nodes
    assert len(chain.keys) == 1
    assert len(star.keys) == 3


def test_no_shifts_are_no_cover() -> None:
    with pytest.raises(ValueError, match="at least one shift"):
        covers([], 8)


def test_shifts_may_be_numpy_integers_and_negative() -> None:
    [cover] = covers(np.array([-3]), 8)
    assert (cover.offset, cover.rotations) == (5, 0)


def test_many_shifts_are_covered_by_few_rotations() -> None:
    """1,600 shifts of a convolution's pattern, and as many of none, for which few baby sets are compared."""
    rows, columns, blocks = np.arange(5) * 16, np.arange(5), np.arange(64) * 256
    pattern = (rows[:, None, None] + columns[:, None] + blocks).reshape(-1)
    for cover in covers(pattern.tolist(), 16384):
        assert_covers(cover, frozenset(pattern.tolist()))
    fewest = min(covers(pattern.tolist(), 16384), key=lambda cover: cover.rotations)
    assert fewest.rotations <= 80  # 32 x 50; no two numbers have less than 40 + 40 - 2
    scattered = np.random.default_rng(0).choice(16384, 1600, replace=False)
    for cover in covers(scattered.tolist(), 16384):
        assert_covers(cover, frozenset(scattered.tolist()))


def test_where_giants_are_dear_many_shifts_are_covered_by_more_babies() -> None:
    pattern = ((np.arange(5) * 16)[:, None, None] + np.arange(5)[:, None] + np.arange(64) * 256).reshape(-1).tolist()

    def price(ratio: float, by: float) -> float:
        found = covers(pattern, 16384, ratio)
        for cover in found:
            assert_covers(cover, frozenset(pattern))
        return min(cover.babies.rotations + by * cover.giants.rotations for cover in found)

    for ratio in (0.25, 8.0):
        assert price(ratio, ratio) < price(1.0, ratio)
        assert price(ratio, ratio) + 1 + ratio >= 2 * np.sqrt(ratio * len(pattern))
