"""LoLa, FFConv and Falcon as published: from the layers of a network to the steps that evaluate it.

LoLa: Brutzkus, Gilad-Bachrach and Elisha, "Low Latency Privacy Preserving Inference", ICML 2019 (arXiv 1812.10659),
and its code (github.com/microsoft/CryptoNets): the input as windows, dense layers "stacked" and "interleaved".
FFConv: Lu et al., arXiv 2102.03494: a d x d convolution under DensePack in r w_o h_o log2(c_i d^2) rotations, then a
1 x 1 convolution under ConvPack in none. Falcon: falcon.py.
What these leave open, and what is chosen here: docs/ffconv.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod

import numpy as np

from heinfer.baselines.falcon import (
    Segmented,
    is_planar,
    segments_for,
    spectral,
    to_spectrum,
    window_slots,
)
from heinfer.baselines.layers import Evaluation, Layer, LinearLayer, SquareLayer
from heinfer.baselines.recipes import Gather, Recipe, Rows, Transform, identity
from heinfer.baselines.slot_maps import (
    Planes,
    SlotMap,
    Vector,
    Windows,
    doublings,
    named,
    planes,
    raster_for,
    subset_sums,
    vector,
)
from heinfer.errors import LayoutError
from heinfer.layout.layout import FREE
from heinfer.layout.packings import power_of_two
from heinfer.network.linear_map import LinearMap

MethodStep = Recipe | SquareLayer
Packed = Windows | Vector | Planes | Segmented


def recipes_for(layers: list[Layer], slots: int) -> tuple[SlotMap | Windows, list[MethodStep]]:
    """What the client sends, and the steps; LayoutError names the layer whose tensors do not fit the slots."""
    linear = [layer for layer in layers if isinstance(layer, LinearLayer)]
    with _named_after(linear[0]):
        sent = _sent(linear, slots)
    state: Packed = sent
    steps: list[MethodStep] = []
    done = 0
    for layer in layers:
        if isinstance(layer, SquareLayer):
            steps.append(layer)
            continue
        done += 1
        with _named_after(layer):
            made, state = _steps(layer, state, linear[done:])
        steps += made
    return sent if isinstance(sent, Windows) else sent.places, steps


@contextmanager
def _named_after(layer: LinearLayer) -> Iterator[None]:
    try:
        yield
    except LayoutError as error:
        raise LayoutError(f"{layer.name}: {error}") from None


def _sent(linear: list[LinearLayer], slots: int) -> Windows | Vector | Segmented:
    """How the client sends the input: windows of the first convolution where its output will be, or a vector."""
    first, following = linear[0].map, linear[1:]
    if linear[0].evaluation is Evaluation.DENSE:
        return vector(first.in_shape, slots, copied=bool(following))
    if linear[0].evaluation is Evaluation.TO_SPECTRUM:
        raster = raster_for(first.in_shape, _convolutions(linear)) if is_planar(linear[0]) else None
        return segments_for(linear[0], first.in_shape, slots, raster)
    _, height, width = first.out_shape
    if following and following[0].evaluation is Evaluation.TO_SPECTRUM and not is_planar(following[0]):
        return Windows(first, slots, window_slots(first.out_shape, slots, following[0].block))
    if following and following[0].evaluation is Evaluation.DENSE:
        return Windows(first, slots, np.arange(height * width))
    return Windows(first, slots, raster_for(first.out_shape, _convolutions(following)).pixels(height, width))


def _convolutions(following: list[LinearLayer]) -> list[LinearMap]:
    kinds = (Evaluation.CONVOLUTION, Evaluation.TO_SPECTRUM, Evaluation.SPECTRAL)
    return [layer.map for layer in following if layer.evaluation in kinds and is_planar(layer)]


def _steps(layer: LinearLayer, state: Packed, following: list[LinearLayer]) -> tuple[list[Recipe], Packed]:
    match layer.evaluation, state:
        case Evaluation.WINDOWS, Windows():
            return _of_windows(layer, state, following)
        case Evaluation.POINTWISE, Planes():
            target = _planes_for(following, layer.map.out_shape, state)
            return [Recipe(layer.name, layer.map, state.places, target.places)], target
        case Evaluation.CONVOLUTION, Planes():
            return _of_convolution(layer, state, following)
        case Evaluation.DENSE, Vector() | Planes():
            return _of_vector(layer, state, following)
        case Evaluation.DENSE, Segmented():
            every = Vector(state.places, doublings(1, state.places.slots))
            return _of_vector(layer, every, following)
        case Evaluation.TO_SPECTRUM, Segmented():
            made, spectrum = to_spectrum(layer, state)
            return [*made], spectrum
        case Evaluation.SPECTRAL, Segmented():
            made, spectrum = spectral(layer, state, following)
            return [*made], spectrum
        case Evaluation.FROM_SPECTRUM, Segmented():
            return _of_spectrum(layer, state, following)
        case _:
            raise AssertionError(f"{layer.name}: {layer.evaluation} of {type(state).__name__}")


def _of_windows(layer: LinearLayer, sent: Windows, following: list[LinearLayer]) -> tuple[list[Recipe], Packed]:
    """Scalar products, one sum for each channel; then a rotation for each that shares a ciphertext."""
    state = _after_windows(layer.map.out_shape, sent.slots, following)
    return [Recipe(layer.name, layer.map, sent, state.places)], state


def _after_windows(shape: tuple[int, ...], slots: int, following: list[LinearLayer]) -> Vector | Planes | Segmented:
    if following and following[0].evaluation is Evaluation.TO_SPECTRUM:
        raster = raster_for(shape, _convolutions(following)) if is_planar(following[0]) else None
        return segments_for(following[0], shape, slots, raster)
    if following and following[0].evaluation is Evaluation.DENSE:
        return vector(shape, slots, copied=_wants_copies(following), together=prod(shape[1:]))
    return planes(shape, raster_for(shape, _convolutions(following)), slots, dense=_wants_dense(following))


def _of_convolution(layer: LinearLayer, source: Planes, following: list[LinearLayer]) -> tuple[list[Recipe], Packed]:
    """A dot product for each output over its window in all channels, its sum at the window's corner."""
    if not following:
        return [_complete_rows(layer, source.places)], source
    corners = Planes(source.places, source.raster.after(layer.map))
    _, height, width = layer.map.out_shape
    size, slots = prod(layer.map.out_shape), source.places.slots
    corner = np.resize(corners.raster.pixels(height, width) % slots, size)
    label = f"{named(layer.map.out_shape)} in {size} ciphertexts"
    ends = SlotMap(layer.map.out_shape, slots, np.arange(size), corner, label, others=FREE)
    blocks = min(power_of_two(layer.map.in_shape[0]), slots // source.raster.block)
    channels = (source.raster.block * step for step in doublings(1, blocks))
    sums = (*source.raster.window(layer.map), *channels)
    rows = Rows(layer.name, layer.map, source.places, ends, sums, in_place=True)
    target = _planes_for(following, layer.map.out_shape, corners)
    return [rows, _gathered(layer, ends, target.places, "mask", in_place=False)], target


def _of_spectrum(
    layer: LinearLayer, source: Segmented, following: list[LinearLayer]
) -> tuple[list[Recipe], Planes | Segmented]:
    """The inverse DFT, to where the next layer reads."""
    shape, now = layer.map.out_shape, source.segments
    if following and following[0].evaluation is Evaluation.CONVOLUTION and now.raster:
        end = planes(shape, now.raster, now.slots, dense=True)
        return [Transform(layer.name, layer.map, source.places, end.places)], end
    if following and following[0].evaluation is Evaluation.TO_SPECTRUM:
        if following[0].block == now.block and is_planar(following[0]) == (now.raster is not None):
            kept = Segmented(now.places(shape, spectral=False), now)
        else:
            kept = segments_for(following[0], shape, now.slots, now.raster, copied=False)
    else:
        kept = Segmented(now.places(shape, spectral=False), now)
    return [Transform(layer.name, layer.map, source.places, kept.places)], kept


def _of_vector(
    layer: LinearLayer, source: Vector | Planes, following: list[LinearLayer]
) -> tuple[list[Recipe], Packed]:
    """A dot product for each output over the whole tensor: several to a ciphertext where copies of it are."""
    target: Vector | Planes | Segmented
    to_segments = bool(following) and following[0].evaluation is Evaluation.TO_SPECTRUM
    if isinstance(source, Vector) and source.free and following and not to_segments:
        ends = _stacked(layer.map.out_shape, source)
        rows = Rows(layer.name, layer.map, source.places, ends, source.sums, in_place=True)
        target = _interleaved(layer.map.out_shape, source, copied=_wants_copies(following))
        return [rows, _gathered(layer, ends, target.places, "interleave", in_place=False)], target
    rows = _complete_rows(layer, source.places)
    if to_segments:
        target = segments_for(following[0], layer.map.out_shape, source.places.slots, None)
    else:
        target = vector(layer.map.out_shape, source.places.slots, copied=_wants_copies(following))
    if not following:
        return [rows], target
    return [rows, _gathered(layer, rows.target, target.places, "mask", in_place=True)], target


def _complete_rows(layer: LinearLayer, source: SlotMap) -> Rows:
    """A ciphertext for each output, every slot of which ends with the complete sum."""
    size = prod(layer.map.out_shape)
    every = doublings(1, source.slots)
    label = f"{named(layer.map.out_shape)} in every slot of {size} ciphertexts"
    ends = SlotMap(layer.map.out_shape, source.slots, np.arange(size), np.zeros(size, dtype=np.int64), label, every)
    return Rows(layer.name, layer.map, source, ends, every, in_place=True)


def _stacked(shape: tuple[int, ...], source: Vector) -> SlotMap:
    """Where the sums of rows end: output after output at the beginnings of the copies of the source."""
    number = np.arange(prod(shape))
    copy = subset_sums(source.free)
    ciphertext = number // copy.size
    label = f"{named(shape)} in {int(ciphertext[-1]) + 1} ciphertexts, {copy.size} in each"
    return SlotMap(shape, source.places.slots, ciphertext, copy[number % copy.size], label, others=FREE)


def _interleaved(shape: tuple[int, ...], source: Vector, *, copied: bool) -> Vector:
    """The ends of stacked rows in one ciphertext: those of the ciphertext k moved by k, into what was one copy."""
    number = np.arange(prod(shape))
    copy, within = subset_sums(source.free), subset_sums(source.sums)
    slot = copy[number % copy.size] + within[number // copy.size % within.size]
    used = (power_of_two(-(-number.size // copy.size)) - 1).bit_length()
    free = source.sums[used:] if copied else ()
    note = f", {1 << len(free)} copies" if free else ""
    slots = source.places.slots
    places = SlotMap(shape, slots, number // slots, slot, f"{named(shape)} interleaved{note}", free)
    return Vector(places, source.free + source.sums[:used], free)


def _gathered(layer: LinearLayer, source: SlotMap, target: SlotMap, what: str, *, in_place: bool) -> Gather:
    return Gather(f"{layer.name}: {what}", identity(layer.map.out_shape), source, target, in_place=in_place)


def _planes_for(following: list[LinearLayer], shape: tuple[int, ...], source: Planes) -> Planes | Segmented:
    if following and following[0].evaluation is Evaluation.TO_SPECTRUM:
        return segments_for(following[0], shape, source.places.slots, source.raster)
    return planes(shape, source.raster, source.places.slots, dense=_wants_dense(following))


def _wants_dense(following: list[LinearLayer]) -> bool:
    """Convolutions read DensePack, everything else ConvPack."""
    return bool(following) and following[0].evaluation is Evaluation.CONVOLUTION


def _wants_copies(following: list[LinearLayer]) -> bool:
    """Rows are stacked over copies of their input, but the scores are not."""
    return len(following) > 1
