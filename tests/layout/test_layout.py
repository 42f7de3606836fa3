"""Layouts and named packings: what they hold, and that packing and unpacking lose nothing."""

from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packings import conv_pack, packed_windows
from planning import SEEDS, random_layout

from heinfer.errors import LayoutError
from heinfer.layout.layout import FREE, ZERO, Layout
from heinfer.layout.packings import (
    Grid,
    Samples,
    cyclic_pack,
    dense_pack,
    phase_pack,
    plane_pack,
    power_of_two,
    sample_pack,
)
from heinfer.network.operators import Convolution

SLOTS = st.sampled_from([16, 32, 64, 128, 256])
SIDES = st.integers(1, 6)
PLANES = st.tuples(st.integers(1, 9), SIDES, SIDES)
PAIRS = st.tuples(st.integers(1, 3), st.integers(1, 3))

quick = settings(max_examples=40, deadline=None)


def numbered(shape: tuple[int, ...]) -> np.ndarray:
    """A tensor whose every element is different and none is zero, in a batch of two."""
    elements = np.arange(1.0, prod(shape) + 1).reshape(shape)
    return np.stack([elements, -elements])


@quick
@given(SEEDS, st.integers(1, 6), st.integers(1, 2))
def test_a_product_lies_where_both_factors_are_once_the_second_is_rotated(seed, elements, ciphertexts):
    rng = np.random.default_rng(seed)
    first = random_layout(rng, elements, ciphertexts, 16)
    moved = int(rng.integers(16))
    where = np.roll(first.index, moved, axis=1)
    thinned = np.where((where < 0) | (rng.random(where.shape) < 0.2), rng.choice([ZERO, FREE], where.shape), where)
    index = where if np.bincount(thinned[thinned >= 0], minlength=elements).min() == 0 else thinned
    shift, product = first.aligned(Layout((elements,), index))

    x, y = (rng.integers(1, 9, elements).astype(float) for _ in range(2))
    slots = [
        np.where(place.index == FREE, 99.0, place.pack(v)) for place, v in ((first, x), (Layout((elements,), index), y))
    ]
    multiplied = slots[0] * np.roll(slots[1], -shift, axis=1)
    known = product.index != FREE
    assert np.array_equal(multiplied[known], product.pack(x * y)[known])
    assert first.aligned(first) == (0, first.times(first))


def test_factors_that_no_rotation_brings_together_have_no_product():
    one, other = (Layout((3,), np.array([[*order, ZERO]])) for order in ((0, 1, 2), (0, 2, 1)))
    assert one.times(other) is None
    assert one.aligned(other) is None
    assert one.aligned(Layout((2,), np.array([[0, 1, ZERO, ZERO]]))) is None


def assert_packs(layout: Layout, slots: int) -> None:
    """Unpacking undoes packing, every slot holds the element that the index names, and all others hold zero."""
    x = numbered(layout.shape)
    packed = layout.pack(x)
    assert packed.shape == (2, layout.ciphertexts, slots)
    assert np.array_equal(layout.unpack(packed), x)
    for ciphertext in range(layout.ciphertexts):
        for slot in range(slots):
            element = layout.index[ciphertext, slot]
            assert packed[0, ciphertext, slot] == (element + 1 if element >= 0 else 0)


# Each named packing ------------------------------------------------------------------------------


@quick
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple), SLOTS)
def test_dense_pack_is_row_major_in_as_few_ciphertexts_as_hold_it(shape: tuple[int, ...], slots: int) -> None:
    layout = dense_pack(shape, slots)
    assert layout.ciphertexts == -(-prod(shape) // slots)
    assert np.array_equal(layout.index.reshape(-1)[: prod(shape)], np.arange(prod(shape)))
    assert_packs(layout, slots)


@quick
@given(PLANES, st.sampled_from([36, 64, 256]))
def test_conv_pack_has_a_ciphertext_for_each_channel(shape: tuple[int, int, int], slots: int) -> None:
    layout = conv_pack(shape, slots)
    assert layout.ciphertexts == shape[0]
    x = numbered(shape)
    assert np.array_equal(layout.pack(x)[:, :, : prod(shape[1:])], x.reshape(2, shape[0], -1))
    assert_packs(layout, slots)


@st.composite
def windows(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """Size, kernel, stride and padding along one axis such that some window reads every pixel."""
    kernel = draw(st.integers(1, 3))
    stride, padding = draw(st.integers(1, kernel)), draw(st.integers(0, kernel - 1))
    size = (draw(st.integers(1, 5)) - 1) * stride + kernel - 2 * padding
    return max(size, kernel), kernel, stride, padding if size >= kernel else 0


@quick
@given(st.integers(1, 3), windows(), windows())
def test_window_pack_holds_for_every_tap_the_pixels_it_reads(
    channels: int, along_y: tuple[int, int, int, int], along_x: tuple[int, int, int, int]
) -> None:
    (height, width), kernel, stride, padding = zip(along_y, along_x, strict=True)
    shape = (channels, height, width)
    layout = packed_windows(shape, kernel, stride, padding, 32)
    assert layout.ciphertexts == channels * prod(kernel)
    assert_packs(layout, 32)
    weight = np.arange(1.0, layout.ciphertexts + 1).reshape(1, channels, *kernel)
    expected = Convolution(weight, np.zeros(1), stride, padding)(numbered(shape))[0].reshape(-1)
    sums = np.tensordot(weight.reshape(-1), layout.pack(numbered(shape))[0], axes=1)
    assert np.array_equal(sums, np.pad(expected, (0, 32 - expected.size)))


def test_window_pack_loses_no_pixel_that_no_window_reads() -> None:
    layout = packed_windows((1, 4, 4), (3, 3), (2, 2), (0, 0), 16)
    assert layout.ciphertexts == 9 + 1
    assert layout.index[9].tolist() == [3, 7, 11, 12, 13, 14, 15] + [ZERO] * 9
    assert_packs(layout, 16)


@quick
@given(PLANES, PAIRS, SLOTS)
def test_phase_pack_puts_every_stride_phase_into_a_block(
    shape: tuple[int, int, int], stride: tuple[int, int], slots: int
) -> None:
    grid = Grid(*(power_of_two(-(-n // s)) for n, s in zip(shape[1:], stride, strict=True)))
    layout = phase_pack(shape, stride, grid, slots)
    assert_packs(layout, slots)
    places = {int(e): int(i) for i, e in reversed(list(enumerate(layout.index.reshape(-1))))}
    for c, y, x in np.ndindex(shape):
        place = places[(c * shape[1] + y) * shape[2] + x]
        phase = (c * stride[0] + y % stride[0]) * stride[1] + x % stride[1]
        assert place == phase * grid.block + y // stride[0] * grid.width + x // stride[1]


@quick
@given(PLANES, PAIRS, st.integers(0, 5), SLOTS)
def test_plane_pack_with_turns_gaps_and_several_ciphertexts(
    shape: tuple[int, int, int], gaps: tuple[int, int], turn: int, slots: int
) -> None:
    _, height, width = shape
    grid = Grid(power_of_two(height * gaps[0]), power_of_two(width * gaps[1]), *gaps)
    if grid.block > slots:
        with pytest.raises(LayoutError, match="does not fit"):
            plane_pack(shape, grid, slots, turn)
        return
    layout = plane_pack(shape, grid, slots, turn)
    assert_packs(layout, slots)
    assert (layout.index >= 0).any(axis=1).all()
    for block in layout.index.reshape(-1, grid.height, grid.width):
        for y, x in np.ndindex(gaps):  # a channel's plane lies whole at one gap position of one block
            plane = block[y :: gaps[0], x :: gaps[1]][:height, :width].reshape(-1)
            expected = plane[0] + np.arange(plane.size) if plane[0] >= 0 else np.full(plane.size, FREE)
            assert np.array_equal(plane, expected)
            assert plane[0] % plane.size == 0 or plane[0] == FREE


def test_copies_of_planes_are_turned_by_so_many_channels() -> None:
    layout = plane_pack((4, 1, 1), Grid(1, 1), 16, turn=1)
    assert layout.index.reshape(4, 4).tolist() == [[0, 1, 2, 3], [1, 2, 3, 0], [2, 3, 0, 1], [3, 0, 1, 2]]


def test_channels_that_find_no_block_live_in_the_gaps() -> None:
    layout = plane_pack((4, 1, 2), Grid(2, 4, 2, 2), 16)
    assert layout.ciphertexts == 1
    free = FREE
    assert layout.index.reshape(2, 2, 4).tolist() == [
        [[0, 4, 1, 5], [free, free, free, free]],
        [[2, 6, 3, 7], [free, free, free, free]],
    ]


@quick
@given(st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple), SLOTS)
def test_cyclic_pack_repeats_with_the_padded_length(shape: tuple[int, ...], slots: int) -> None:
    layout = cyclic_pack(shape, slots)
    assert_packs(layout, slots)
    assert layout.period <= min(power_of_two(prod(shape)), slots)
    assert not layout.has_free_slots


# Every layout ------------------------------------------------------------------------------------


@quick
@given(SEEDS, st.integers(1, 40), st.integers(1, 3))
def test_unpacking_undoes_packing_for_any_layout(seed: int, elements: int, ciphertexts: int) -> None:
    layout = random_layout(np.random.default_rng(seed), elements, ciphertexts, 64)
    assert_packs(layout, 64)
    assert layout.copies.sum() == (layout.index >= 0).sum()


@quick
@given(SEEDS, st.integers(-70, 70))
def test_shifting_moves_the_packed_slots(seed: int, offset: int) -> None:
    layout = random_layout(np.random.default_rng(seed), 9, 2, 32)
    x = numbered((9,))
    assert np.array_equal(layout.shifted(offset).pack(x), np.roll(layout.pack(x), offset, axis=-1))
    assert layout.shifted(offset).shifted(-offset) == layout


@quick
@given(SEEDS, st.sampled_from([1, 2, 4, 8, 16, 32]))
def test_the_period_is_the_least_rotation_that_changes_nothing(seed: int, period: int) -> None:
    rng = np.random.default_rng(seed)
    part = random_layout(rng, max(period // 2, 1), 2, period).index
    layout = Layout((max(period // 2, 1),), np.tile(part, (1, 32 // period)))
    unchanged = [p for p in (1, 2, 4, 8, 16, 32) if layout.shifted(p) == layout]
    assert layout.period == unchanged[0] <= period


def test_copies_are_read_back_as_their_mean() -> None:
    layout = Layout((2,), np.array([[0, 1, 0, ZERO], [FREE, 0, 1, 0]]))
    slots = np.array([[1.0, 10, 3, 99], [99, 5, 20, 7]])
    assert layout.unpack(slots).tolist() == [4, 15]


def test_equal_layouts_are_one_dictionary_key() -> None:
    one, same, other = dense_pack((3,), 4), dense_pack((3,), 4), dense_pack((3, 1), 4)
    assert len({one: 0, same: 1, other: 2}) == 2
    assert one != "layout"


def test_a_batch_may_have_any_shape_or_none() -> None:
    layout = dense_pack((2, 3), 4)
    for batch in ((), (5,), (2, 3), (0,)):
        x = np.ones((*batch, 2, 3))
        assert layout.pack(x).shape == (*batch, 2, 4)
        assert layout.unpack(layout.pack(x)).shape == x.shape


@pytest.mark.parametrize(
    ("index", "complaint"),
    [
        ([[0, 1, 2, 4]], "may only hold elements 0..3"),
        ([[0, 1, 2, 3, -3]], "may only hold elements"),
        ([[0, 1, 3, 3]], "element 2 of a tensor"),
        ([0, 1, 2, 3], "shape"),
        (np.empty((0, 4)), "shape"),
    ],
)
def test_a_malformed_index_is_refused(index: object, complaint: str) -> None:
    with pytest.raises(LayoutError, match=complaint):
        Layout((2, 2), np.array(index))


def test_what_does_not_fit_is_refused() -> None:
    layout = dense_pack((2, 3), 4)
    with pytest.raises(LayoutError, match="does not fit"):
        layout.pack(np.ones((3, 2)))
    with pytest.raises(LayoutError, match="do not fit"):
        layout.unpack(np.ones((1, 4)))
    with pytest.raises(LayoutError, match="does not fit 16 slots"):
        conv_pack((1, 5, 5), 16)
    with pytest.raises(LayoutError, match="reaches over 25 slots and there are 16"):
        packed_windows((1, 5, 5), (1, 1), (1, 1), (0, 0), 16)
    with pytest.raises(LayoutError, match="do not fit"):
        plane_pack((1, 3, 3), Grid(2, 4), 16)
    with pytest.raises(LayoutError, match="do not fit"):
        phase_pack((1, 5, 5), (2, 2), Grid(2, 4), 16)


def test_an_index_cannot_be_changed_behind_a_layout() -> None:
    mine = np.array([[0, 1, ZERO, ZERO]])
    layout = Layout((2,), mine)
    mine[0, 0] = 1
    assert layout.index[0, 0] == 0
    with pytest.raises(ValueError, match="read-only"):
        layout.index[0, 0] = 1


@quick
@given(st.sampled_from([2, 4]), st.integers(1, 5), SLOTS)
def test_interleaved_tensors_keep_to_themselves(batch: int, size: int, slots: int) -> None:
    layout = cyclic_pack((size,), slots)
    both = layout.interleaved(batch)
    x = np.random.default_rng(0).normal(size=(3, batch, size))
    packed = both.pack(x)
    for b in range(batch):
        assert np.array_equal(packed[..., b::batch], layout.pack(x[:, b]))
    np.testing.assert_allclose(both.unpack(packed), x)
    # a rotation by r batch slots moves each as one by r slots moves the single one
    assert np.array_equal(np.roll(packed, -batch, axis=-1)[..., ::batch], np.roll(layout.pack(x[:, 0]), -1, axis=-1))
    assert layout.interleaved(1) is layout


def test_sample_pack_holds_every_tap_at_the_place_of_its_output() -> None:
    """A 1-D convolution of three taps, stride two, padding one: plane j holds what tap j reads for each output."""
    taps, row = Samples(2, (-1, 0, 1), 3), Samples(1, (0,), 1)
    layout = sample_pack((1, 1, 6), row, taps, Grid(1, 4), 16)
    assert layout.index.reshape(4, 4).tolist() == [[ZERO, 1, 3, ZERO], [0, 2, 4, ZERO], [1, 3, 5, ZERO], [ZERO] * 4]


def test_sample_pack_takes_several_ciphertexts_when_it_must() -> None:
    phases = Samples.phases(6, 2)
    layout = sample_pack((3, 6, 6), phases, phases, Grid(4, 4), 64)
    assert layout.index.shape == (3, 64)  # twelve planes, four to a ciphertext
    with pytest.raises(LayoutError, match="planes of 3 x 3 do not fit"):
        sample_pack((3, 6, 6), phases, phases, Grid(2, 4), 64)


def test_plane_pack_splits_planes_into_stride_phases() -> None:
    layout = plane_pack((1, 2, 3), Grid(1, 2), 8, phases=(2, 2))
    assert layout.index.reshape(4, 2).tolist() == [[0, 2], [1, FREE], [3, 5], [4, FREE]]
    apart = plane_pack((4, 1, 2), Grid(2, 4, 2, 2), 16, gaps=1)
    assert apart.ciphertexts == 2
