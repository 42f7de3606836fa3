"""Manifests of several inputs and outputs, of named features and numbers for each element: format 4."""

import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import PARAMETERS, sample_bundle, sample_manifest

from heinfer.errors import HeinferError, ManifestError
from heinfer.formats import bundle as bundles
from heinfer.formats.bundle import Bundle
from heinfer.formats.ends_part import version_for
from heinfer.formats.manifest import LayoutPart, Manifest, Preprocessing, parse_manifest
from heinfer.layout.layout import ZERO, Layout
from heinfer.layout.parts import joined, parts_of, split
from heinfer.zoo import bundle_path

IMAGE = Preprocessing(divisor=255, mean=(0.25,), std=(0.5,), low=-0.5, high=1.5)
RECORD = Preprocessing(
    divisor=1.0,
    mean=(50.0, 25.0, 0.0),
    std=(15.0, 5.0, 1.0),
    low=(-3.5, -3.0, -1.0),
    high=4.0,
    kind="values",
    features=("age", "bmi", "sex"),
)


def inflated(file: bytes) -> bytes:
    """The payload of a bundle's file, in which its manifest stands as it was written."""
    return lzma.decompress(file[file.index(b"\xfd7zXZ") :])


def part_layout(shape: tuple[int, ...], first: int) -> LayoutPart:
    index = np.full((1, PARAMETERS.slots), ZERO)
    size = int(np.prod(shape))
    index[0, first : first + size] = range(size)
    return LayoutPart.from_layout(Layout(shape, index))


def manifest_of_parts() -> Manifest:
    """A picture and a record in, a class and an offset out."""
    plain = sample_manifest()
    image = plain.input.model_copy(update={"layout": part_layout((1, 2, 2), 0), "preprocessing": IMAGE})
    record = plain.input.model_copy(update={"name": "record", "layout": part_layout((3,), 4), "preprocessing": RECORD})
    sick = plain.output.model_copy(update={"name": "class", "layout": part_layout((2,), 0)})
    offset = plain.output.model_copy(
        update={"name": "offset", "layout": part_layout((1, 2, 2), 2), "kind": "values", "labels": ()}
    )
    return sample_manifest(version=4, inputs=(image, record), outputs=(sick, offset))


def document() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(manifest_of_parts().to_bytes())
    return content


def parse(content: Any) -> Manifest:
    return parse_manifest(json.dumps(content).encode())


def test_parts_come_back_as_they_were():
    manifest = manifest_of_parts()
    read = parse_manifest(manifest.to_bytes())
    assert read == manifest
    assert read.to_bytes() == manifest.to_bytes()
    assert [(part.name, part.shape, part.start) for part in read.input_parts] == [
        ("image", (1, 2, 2), 0),
        ("record", (3,), 4),
    ]
    assert [part.name for part in read.output_parts] == ["class", "offset"]
    assert (read.input_shape, read.output_shape) == ((7,), (6,))
    assert read.input_layout().index[0, :8].tolist() == [0, 1, 2, 3, 4, 5, 6, ZERO]
    assert "image (1, 2, 2), record (3,)" in repr(read)


def test_version_4_keeps_its_bytes():
    stored = (Path(__file__).parents[1] / "golden" / "manifest-4.json").read_bytes()
    assert parse_manifest(stored) == manifest_of_parts()
    assert manifest_of_parts().to_bytes() == stored


def test_a_bundle_holds_it():
    made = sample_bundle()
    changed = Bundle(manifest_of_parts(), made.circuit, made.bounds, made.metadata)
    assert bundles.from_bytes(bundles.to_bytes(changed)).manifest == manifest_of_parts()


def test_a_manifest_that_needs_nothing_new_is_of_version_3_and_has_its_bytes():
    data = sample_manifest().to_bytes()
    assert json.loads(data)["version"] == 3
    assert b"features" not in data
    shipped = bundles.load(bundle_path("mnist-ffconv")).manifest
    assert shipped.version == 3
    assert shipped.to_bytes() in inflated(bundle_path("mnist-ffconv").read_bytes())


@pytest.mark.parametrize(
    ("shape", "changes", "version"),
    [
        ((3, 4, 4), {"mean": (0.0,) * 3, "std": (1.0,) * 3}, 3),
        ((3, 4, 4), {}, 4),
        ((6,), {}, 3),
        ((6,), {"mean": (0.0,) * 6, "std": (1.0,) * 6}, 4),
        ((6,), {"low": (-1.0,) * 6}, 4),
        ((6,), {"low": (-1.0,)}, 4),
        ((3,), {"features": ("a", "b", "c")}, 4),
        ((2, 9), {"mean": (0.0,) * 2, "std": (1.0,) * 2}, 4),
    ],
)
def test_the_version_is_the_lowest_that_says_it(shape, changes, version):
    told = {"divisor": 1.0, "mean": (0.0,), "std": (1.0,), "low": -1.0, "high": 1.0, "kind": "values"} | changes
    inside = sample_manifest().input.model_copy(
        update={"layout": part_layout(shape, 0), "preprocessing": Preprocessing(**told)}
    )
    assert version_for((inside,), sample_manifest().outputs, 1) == version
    assert sample_manifest(version=4, inputs=(inside,)).input == inside
    if version == 4:
        with pytest.raises(ManifestError, match="of format 4"):
            parse(json.loads(sample_manifest(version=4, inputs=(inside,)).to_bytes()) | {"version": 3})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c["inputs"][1].update(name="image"), "two of the inputs have one name"),
        (lambda c: c["outputs"][1].update(name="class"), "two of the outputs have one name"),
        (lambda c: c["inputs"][1]["layout"]["runs"][0].update(slot=3), "inputs: two of the layouts name the same slot"),
        (lambda c: c["outputs"][1]["layout"]["runs"][0].update(slot=1), "outputs: two of the layouts name the same"),
        (lambda c: c["inputs"][1]["layout"].update(ciphertexts=2), "in the same ciphertexts"),
        (lambda c: c["inputs"][1].update(level=0), "in the same ciphertexts"),
        (lambda c: c["outputs"][1].update(scale=2.0**20), "in the same ciphertexts"),
        (lambda c: c["outputs"][1].update(level=0, scale=2.0**20), "in the same ciphertexts"),
        (lambda c: c["outputs"][1].update(labels=["a", "b"]), "4 labels"),
        (lambda c: c["outputs"][1].update(labels=["a", "b", "c", "d"]), "labels name the classes of a classification"),
        (lambda c: c["outputs"][1].update(range=1e30), "output's range"),
        (lambda c: c["inputs"].extend(c["inputs"] * 1000), "at most 16"),
        (lambda c: c["outputs"].extend(c["outputs"] * 1000), "at most 16"),
        (lambda c: c["inputs"].clear(), "at least 1"),
        (lambda c: c.update(version=3), "of format 4"),
        (lambda c: c["inputs"][1]["layout"].update(shape=[4]), "has no slot"),
        (lambda c: c["inputs"][1]["preprocessing"].update(mean=[1.0] * 2, std=[1.0] * 2), "one an element .3."),
        (lambda c: c["inputs"][1]["preprocessing"].update(low=[1.0] * 2), "low must have"),
        (lambda c: c["inputs"][1]["preprocessing"].update(high=[1e300, 1.0, 1.0]), "half the modulus"),
        (lambda c: c["inputs"][1]["preprocessing"].update(features=["a", "b"]), "2 features name"),
        (lambda c: c["inputs"][1]["preprocessing"].update(features=["a", "b", "b"]), "two features have one name"),
        (lambda c: c["inputs"][1]["preprocessing"].update(features=["a", "b", "\x1b[2J"]), "control characters"),
        (lambda c: c["inputs"][1]["preprocessing"].update(features=["a", "b", "x" * 65]), "at most 64"),
        (lambda c: c["inputs"][1]["preprocessing"].update(mean=[0.0] * (1 << 17)), "at most 65536"),
        (lambda c: c["inputs"][0]["preprocessing"].update(features=["a"]), "kind='values'"),
        (lambda c: c["inputs"][1].update(start=0), "Extra inputs"),
        (lambda c: c.update(batch=2), "batch as its first axis"),
    ],
)
def test_what_contradicts_itself_is_refused_by_name(change: Callable[[Any], None], reason):
    content = document()
    change(content)
    with pytest.raises(ManifestError, match=reason):
        parse(content)


def test_sixteen_large_layouts_are_refused_before_they_are_joined():
    content = document()
    (one, *_), layout = content["inputs"], content["inputs"][1]["layout"]
    many = [one | {"name": f"p{n}", "layout": layout | {"ciphertexts": 2048}} for n in range(16)]
    many = [part | {"preprocessing": content["inputs"][1]["preprocessing"]} for part in many]
    with pytest.raises(ManifestError, match="slots in all"):
        parse(content | {"inputs": many})


def parsed(content: Any) -> Manifest | HeinferError:
    try:
        return parse(content)
    except HeinferError as error:
        return error


JUNK = [None, True, -1, 1 << 70, 1.5, float("nan"), "", "\x1b[2J", [], {}, [[]], ["a"], [0.5, 0.5], "x" * 99]


def test_junk_in_any_place_gives_a_typed_error_or_a_manifest_that_can_be_used():
    def places(content: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        inner = (
            content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
        )
        return [prefix] * bool(prefix) + [path for name, value in inner for path in places(value, (*prefix, name))]

    taken = 0
    for path in places(document()):
        for junk in JUNK:
            content = document()
            at = content
            for name in path[:-1]:
                at = at[name]
            at[path[-1]] = junk
            read = parsed(content)
            if isinstance(read, HeinferError):
                assert "\x1b" not in str(read)
                assert "xxx" not in str(read)
                continue
            taken += 1
            assert read.input_layout().shape == read.input_shape
            for part, inside in zip(read.input_parts, read.inputs, strict=True):
                spread = inside.preprocessing.over(part.shape)
                assert np.broadcast_shapes(*(a.shape for a in vars(spread).values()), part.shape) == part.shape
    assert taken > 20  # other numbers, labels


@settings(max_examples=100, deadline=None)
@given(
    shapes=st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple), min_size=1, max_size=4),
    batch=st.sampled_from([1, 2, 4]),
    seed=st.integers(0, 2**32),
)
def test_layouts_of_parts_are_those_of_the_whole(shapes, batch, seed):
    parts = parts_of((f"p{number}", shape) for number, shape in enumerate(shapes))
    size = sum(part.size for part in parts)
    shape = shapes[0] if len(shapes) == 1 else (size,)
    rng = np.random.default_rng(seed)
    index = np.concatenate([np.arange(size), rng.integers(ZERO, size, 2 * size)])
    rng.shuffle(index)
    whole = Layout(shape, index.reshape(3, -1)).interleaved(batch)
    layouts = split(whole, parts, batch)
    assert joined(layouts, batch) == whole
    images = rng.normal(size=(batch, size))
    slots = whole.pack(images.reshape(whole.shape))
    for part, layout in zip(parts, layouts, strict=True):
        own = part.of(images)
        assert layout.shape == (own.shape if batch > 1 else part.shape)
        assert np.allclose(layout.unpack(slots).reshape(own.shape), own)
