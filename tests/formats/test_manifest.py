"""Manifests: what they say, what they refuse, and all faults at once."""

import json
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from rings import tiny_parameters
from samples import PARAMETERS, sample_manifest

from heinfer.errors import (
    HeinferError,
    InsecureParametersError,
    LayoutError,
    ManifestError,
    NewerFormatError,
    ParameterError,
    SettingError,
)
from heinfer.formats.layout_part import LayoutPart, LayoutRun
from heinfer.formats.manifest import MAX_MANIFEST_BYTES, ParametersPart, Preprocessing, parse_manifest
from heinfer.formats.manifest_2 import upgraded
from heinfer.layout.layout import FREE, ZERO, Layout


def document() -> dict[str, Any]:
    return json.loads(sample_manifest().to_bytes())


def parse(content: Any) -> None:
    parse_manifest(json.dumps(content).encode())


# What is written is what is read ---------------------------------------------------------------


def test_a_manifest_comes_back_as_it_was():
    manifest = sample_manifest()
    data = manifest.to_bytes()
    assert parse_manifest(data) == manifest
    assert parse_manifest(data).to_bytes() == data == sample_manifest().to_bytes()
    assert manifest.to_parameters() == PARAMETERS


@settings(max_examples=100, deadline=None)
@given(scale=st.floats(1e-3, 2.0**52), std=st.floats(1e-300, 1e300))
def test_doubles_cross_exactly(scale, std):
    content = document()
    content["inputs"][0]["scale"] = scale
    content["inputs"][0]["preprocessing"]["std"] = [std]
    read = parse_manifest(json.dumps(content).encode())
    assert (read.input.scale, read.input.preprocessing.std) == (scale, (std,))
    assert parse_manifest(read.to_bytes()) == read


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    slots = draw(st.sampled_from([1, 2, 8, 32]))
    ciphertexts = -(-prod(shape) // slots) + draw(st.integers(0, 2))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    total = ciphertexts * slots
    filling = rng.integers(ZERO, prod(shape), total - prod(shape))
    index = np.concatenate([np.arange(prod(shape)), filling])
    if draw(st.booleans()):
        rng.shuffle(index)
    return Layout(shape, index.reshape(ciphertexts, slots))


@settings(max_examples=150, deadline=None)
@given(layout=layouts())
def test_a_layout_comes_back_as_it_was(layout):
    assert LayoutPart.from_layout(layout).to_layout() == layout


def test_regular_layouts_are_few_runs():
    rows = np.full((1, 8, 16), ZERO)
    rows[0, :4, :7] = np.arange(28).reshape(4, 7)
    part = LayoutPart.from_layout(Layout((28,), rows.reshape(1, -1)))
    assert [(run.slot, run.slot_step, run.index, run.index_step, run.count) for run in part.runs] == [
        (16 * row, 1, 7 * row, 1, 7) for row in range(4)
    ]
    strided = np.full((1, 16), ZERO)
    strided[0, ::4] = [3, 2, 1, 0]
    (run,) = LayoutPart.from_layout(Layout((4,), strided)).runs
    assert (run.slot, run.slot_step, run.index, run.index_step, run.count) == (0, 4, 3, -1, 4)


@settings(max_examples=60, deadline=None)
@given(layout=layouts(), batch=st.sampled_from([1, 2, 4, 16]), seed=st.integers(0, 2**32))
def test_a_layout_of_a_batch_crosses_and_packs_each_image_as_alone(layout, batch, seed):
    images = np.random.default_rng(seed).normal(size=(batch, *layout.shape))
    read = LayoutPart.from_layout(layout.interleaved(batch)).to_layout()
    packed = read.pack(images.reshape(read.shape))
    assert np.array_equal(read.unpack(packed).reshape(images.shape), layout.unpack(layout.pack(images)))
    for place, image in enumerate(images):
        assert np.array_equal(packed[:, place::batch], layout.pack(image))


def test_a_layout_with_free_slots_is_not_told():
    with pytest.raises(LayoutError, match="masked"):
        LayoutPart.from_layout(Layout((1,), np.array([[0, FREE]])))


# Batches ---------------------------------------------------------------------------------------


def document_of_a_batch(batch: int = 4) -> dict[str, Any]:
    """A document whose layouts hold several images; each still has one channel and two scores."""
    manifest = sample_manifest()
    rows = np.arange(PARAMETERS.slots)[None]
    content = document() | {"batch": batch}
    for part, shape in (("inputs", manifest.input_shape), ("outputs", manifest.output_shape)):
        layout = Layout((batch, *shape), rows % (batch * prod(shape)))
        content[part][0]["layout"] = json.loads(LayoutPart.from_layout(layout).model_dump_json())
    return content


def test_a_batch_is_the_first_axis_of_both_layouts():
    manifest = parse_manifest(json.dumps(document_of_a_batch()).encode())
    assert (manifest.batch, manifest.input_shape, manifest.output_shape) == (4, (1, 2, 2), (2,))
    assert parse_manifest(manifest.to_bytes()) == manifest


def test_a_manifest_that_says_nothing_of_a_batch_is_of_one_image():
    content = document()
    del content["batch"]
    manifest = parse_manifest(json.dumps(content).encode())
    assert manifest == sample_manifest()
    assert (manifest.batch, manifest.input_shape, manifest.output_shape) == (1, (1, 2, 2), (2,))


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (("batch",), 2, "input's layout must have the batch"),
        (("batch",), 1, "8 labels"),
        (("outputs", 0, "layout", "shape"), [2, 4], "output's layout must have the batch"),
        (("outputs", 0, "layout", "shape"), [8], "output's layout must have the batch"),
        (("outputs", 0, "labels"), ["a"] * 8, "2 labels"),
        (
            ("inputs", 0, "preprocessing"),
            {"divisor": 255.0, "mean": [0.0] * 4, "std": [1.0] * 4, "low": 0.0, "high": 1.0},
            "are of format 4, and this manifest says that it is of 3",
        ),
    ],
)
def test_a_batch_that_does_not_fit_the_layouts_is_refused(path, value, reason):
    with pytest.raises(ManifestError, match=reason):
        parse(replaced(document_of_a_batch(), path, value))


# Hostile manifests -----------------------------------------------------------------------------


def paths(content: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a document."""
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [prefix] * bool(prefix) + [path for name, value in inner for path in paths(value, (*prefix, name))]


def replaced(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    copy = json.loads(json.dumps(content))
    at = copy
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = value
    return copy


JUNK = [
    None,
    True,
    -1,
    0,
    1 << 63,
    1 << 70,
    1.5,
    -1e308,
    float("nan"),
    float("inf"),
    "",
    "\x1b[2J",
    [],
    {},
    [[]],
    "x" * 99,
]


def refusal(content: Any, read: Callable[[bytes], object] = parse_manifest) -> HeinferError | None:
    try:
        read(json.dumps(content).encode())
    except HeinferError as error:
        return error
    return None


def test_junk_in_any_place_gives_a_typed_error_or_a_consistent_manifest():
    content = document()
    numbers = {"divisor", "mean", "std", "low", "high", "scale", "exponent", "range", "level", "index_step"}
    harmless = numbers | {"labels", "relinearization_level", "step_levels", "steps"}
    for path in paths(content):
        for junk in JUNK:
            changed = replaced(content, path, junk)
            error = refusal(changed)
            if json.dumps(changed) == json.dumps(content):
                assert error is None
            elif error is None:
                assert harmless & set(path), (path, junk)
            else:
                assert isinstance(error, (ManifestError, InsecureParametersError)), (path, junk)
                assert "\x1b" not in str(error)
                assert "xxx" not in str(error)


def test_a_missing_or_unknown_field_is_refused_and_not_echoed():
    content = document()
    for path in paths(content):
        parent = content
        for name in path[:-1]:
            parent = parent[name]
        if isinstance(parent, dict) and path[-1] not in {"format", "version", "batch", "kind", "ground"}:
            without = replaced(content, path, None)
            at = without
            for name in path[:-1]:
                at = at[name]
            del at[path[-1]]
            with pytest.raises(ManifestError):
                parse(without)
            at["private"] = 1
            with pytest.raises(ManifestError) as caught:
                parse(without)
            assert "private" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (("format",), "heinfer-bundle", "format"),
        (("name",), "../x", "name"),
        (("parameters", "data_primes", 1), 2**26 + 1, "not a prime"),
        (("parameters", "special_primes"), [65537], "special prime must be the largest"),
        (("inputs", 0, "level"), 2, r"0\.\.1"),
        (("inputs", 0, "scale"), 2.0**53, "half the modulus"),
        (("inputs", 0, "preprocessing", "low"), 9.0, "low must be below high"),
        (("inputs", 0, "preprocessing", "std"), [0.0], "greater than 0"),
        (("inputs", 0, "preprocessing", "mean"), [0.0, 0.0], "as many entries"),
        (("inputs", 0, "layout", "slots"), 1024, "2048 slots"),
        (("inputs", 0, "layout", "ciphertexts"), 1 << 20, "slots in all"),
        (("inputs", 0, "layout", "shape"), [1 << 20, 1 << 20], "a slot for every element"),
        (("inputs", 0, "layout", "runs", 0, "count"), 5, "leaves the"),
        (("inputs", 0, "layout", "runs", 0, "slot"), 2047, "leaves 1 ciphertexts"),
        (("inputs", 0, "layout", "runs", 0, "ciphertext"), 1, "leaves 1 ciphertexts"),
        (("inputs", 0, "layout", "runs", 1, "slot"), 1, "another run names"),
        (("inputs", 0, "layout", "runs"), [], "has no slot"),
        (("outputs", 0, "labels"), ["a"], "2 labels"),
        (("outputs", 0, "labels"), ["a", "\x1b[2J"], "control characters"),
        (("batch",), 0, "greater than or equal to 1"),
        (("batch",), 1 << 70, "the batch as its first axis"),
        (("key_sets", 0, "steps"), [5, 1], "ascend"),
        (("key_sets", 0, "steps"), [1, 1], "ascend"),
        (("key_sets", 0, "steps"), [3, 2048], r"1\.\.2047"),
        (("key_sets", 0, "steps"), [0, 5], "greater than or equal to 1"),
        (("key_sets", 0, "steps"), [3], "one level a step"),
        (("key_sets", 0, "step_levels"), [1], "one level a step"),
        (("key_sets", 0, "step_levels"), [1, 2], "above the input's level"),
        (("key_sets", 0, "step_levels"), [-1, 1], "greater than or equal to 0"),
        (("key_sets", 0, "relinearization_level"), 2, "above the input's level"),
        (("key_sets", 0, "relinearization_level"), True, "valid integer"),
    ],
)
def test_an_inconsistency_is_named(path, value, reason):
    with pytest.raises(ManifestError, match=reason):
        parse(replaced(document(), path, value))


def test_output_above_input_is_refused():
    content = replaced(document(), ("inputs", 0, "level"), 0)
    with pytest.raises(ManifestError, match="above the input"):
        parse(replaced(content, ("outputs", 0, "level"), 1))


def test_no_manifest_has_insecure_parameters():
    tiny = tiny_parameters()
    part = ParametersPart.of(tiny)
    with pytest.raises(InsecureParametersError):
        parse(replaced(document(), ("parameters",), json.loads(part.model_dump_json())))
    with pytest.raises(InsecureParametersError):
        sample_manifest(parameters=part)


def test_a_newer_manifest_says_so_whatever_else_it_holds():
    with pytest.raises(NewerFormatError, match="upgrade"):
        parse({"format": "heinfer-manifest", "version": 5, "something": {"new": 1}})


def test_an_older_manifest_says_so():
    with pytest.raises(ManifestError, match="format 1, this heinfer reads 3 and 4: upgrade the service"):
        parse({"format": "heinfer-manifest", "version": 1, "keys": {"steps": [3], "relinearization": True}})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("key_sets",), lambda content: 2 * content["key_sets"]),
        (("parameters", "special_primes"), lambda content: [65537, *content["parameters"]["special_primes"]]),
        (("parameters", "digits"), lambda _: [2]),
    ],
)
def test_what_has_a_place_in_the_format_but_no_code_yet_says_so(path, value):
    with pytest.raises(NewerFormatError, match="upgrade heinfer"):
        parse(replaced(document(), path, value(document())))


def test_digits_cover_the_data_primes():
    with pytest.raises(ManifestError, match="digits must cover the data primes"):
        parse(replaced(document(), ("parameters", "digits"), [1]))


def test_the_range_of_the_scores_is_what_can_be_represented_at_most():
    manifest = sample_manifest()
    assert manifest.capacity_of(manifest.output) == PARAMETERS.data_primes[0] / 2 / manifest.output.scale
    parse(replaced(document(), ("outputs", 0, "range"), manifest.capacity_of(manifest.output)))
    with pytest.raises(ManifestError, match="output's range at its scale"):
        parse(replaced(document(), ("outputs", 0, "range"), 1.001 * manifest.capacity_of(manifest.output)))


# Format 2 --------------------------------------------------------------------------------------


def document_of_format_2() -> dict[str, Any]:
    content = document()
    (image,), (scores,), (keys,) = (content.pop(name) for name in ("inputs", "outputs", "key_sets"))
    del image["name"], scores["name"], keys["name"], scores["kind"], scores["range"]
    parameters = content["parameters"]
    del parameters["digits"]
    (parameters["special_prime"],) = parameters.pop("special_primes")
    return content | {"version": 2, "input": image, "output": scores, "keys": keys}


def test_a_manifest_of_format_2_is_read_as_one_of_format_3():
    manifest = upgraded(json.dumps(document_of_format_2()).encode())
    output = sample_manifest().output.model_copy(update={"range": manifest.capacity_of(manifest.output)})
    assert manifest == sample_manifest(outputs=(output,))
    assert manifest.keys_binding == sample_manifest().keys_binding


def test_junk_in_a_manifest_of_format_2_gives_a_typed_error():
    content = document_of_format_2()
    for path in paths(content):
        for junk in JUNK:
            error = refusal(replaced(content, path, junk), upgraded)
            assert error is None or isinstance(error, (ManifestError, InsecureParametersError)), (path, junk)
            assert "xxx" not in str(error)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"null", b"[]", b"\xff\xfe", b"[" * 100_000, b" " * (MAX_MANIFEST_BYTES + 1)]
)
def test_what_is_no_manifest_of_format_2_is_refused(data):
    with pytest.raises(ManifestError):
        upgraded(data)


def test_other_versions_are_none_of_format_2():
    with pytest.raises(ManifestError, match="format 2"):
        upgraded(sample_manifest().to_bytes())


# What is no manifest ---------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"{", b"null", b"[]", b"\xff\xfe", b"{" * 100_000, b'{"a":' * 100_000, b"1e999"])
def test_what_is_no_document_is_refused(data):
    with pytest.raises(ManifestError):
        parse_manifest(data)


def test_a_large_document_is_refused_unread():
    with pytest.raises(ManifestError, match="at most"):
        parse_manifest(b" " * (MAX_MANIFEST_BYTES + 1))


PIXELS = {"divisor": 255, "mean": (0.5,), "std": (0.25,), "low": -2.0, "high": 2}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"mean": 0.5}, r"mean must be a tuple of one number for all, .*, such as \(0.1307,\); 0.5 is not"),
        ({"mean": [0.5]}, r"mean must be a tuple .*; \[0.5\] is not"),
        ({"mean": ("a",)}, r"mean must be a tuple .*; 'a' is not"),
        ({"mean": (0.5, 0.5)}, "mean and std must have as many entries"),
        ({"std": (0.0,)}, "std must be a tuple of one number above 0 for all"),
        ({"divisor": 0}, "divisor must be a number above 0"),
        ({"low": "-2"}, "low must be a number, the smallest value of an input, or a tuple .*; .-2. is not"),
        ({"high": float("nan")}, "high must be a number, .*; nan is not"),
        ({"high": -2.0}, "low must be below high"),
        ({"deviation": (0.25,)}, "there is no deviation; it has divisor, mean, std, low, high, kind, ground"),
        ({"kind": "sound"}, "kind must be 'image' or 'values'; 'sound' is not"),
        ({"ground": 0.5}, r"ground must be a tuple of one number in 0..1 a channel, .*, or None; 0.5 is not"),
        ({"ground": (255.0,)}, r"ground must be a tuple .*; 255.0 is not"),
        ({"ground": (float("nan"),)}, r"ground must be a tuple .*; nan is not"),
        ({"ground": (0.0, 0.0, 0.0)}, "ground must have one entry a channel, as mean has"),
        ({"ground": (0.0,), "kind": "values"}, "ground is for images"),
        ({"low": (-2.0, 1.0), "high": (2.0, 1.0)}, "low must be below high"),
        ({"low": (-2.0, 1.0), "high": (2.0, 2.0, 3.0)}, "low and high must have as many entries"),
        ({"low": ("a",)}, "low must be a number"),
        ({"features": ("age",)}, "features are named in inputs of kind='values'"),
        ({"features": ("age", "age"), "kind": "values"}, "two features have one name"),
        ({"features": "age", "kind": "values"}, r"features must be a tuple of names .*; 'age' is not"),
        ({"features": ("a\x1b",), "kind": "values"}, "features must be a tuple of names"),
    ],
)
def test_preprocessing_names_the_argument_that_is_wrong(changed, message):
    with pytest.raises(SettingError, match=f"^Preprocessing: {message}") as caught:
        Preprocessing(**PIXELS | changed)
    assert "pydantic" not in str(caught.value)


@pytest.mark.parametrize("missing", PIXELS)
def test_preprocessing_names_the_argument_that_is_missing(missing):
    with pytest.raises(SettingError, match=f"^Preprocessing: {missing} is missing: a "):
        Preprocessing(**{name: value for name, value in PIXELS.items() if name != missing})


def test_preprocessing_says_what_an_input_is_and_crosses_as_it_was():
    for said in ({}, {"ground": (0.25,)}, {"kind": "values"}):
        preprocessing = Preprocessing(**PIXELS | said)
        assert Preprocessing.model_validate_json(preprocessing.model_dump_json()) == preprocessing
    assert (Preprocessing(**PIXELS).kind, Preprocessing(**PIXELS).ground) == ("image", None)


def test_parts_are_checked_when_they_are_made():
    with pytest.raises(ValidationError):
        LayoutRun(ciphertext=0, slot=0, slot_step=0, index=0, index_step=1, count=1)
    with pytest.raises(ParameterError):
        sample_manifest(
            parameters=ParametersPart(ring_degree=4096, data_primes=(12289,), special_primes=(12289,), digits=(1,))
        )
