"""Bundles: round trips, golden bytes of old formats, and every kind of damage refused."""

import json
import lzma
import os
import stat
import struct
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load as from_safetensors
from safetensors.numpy import save as to_safetensors
from samples import PARAMETERS, sample_bundle, sample_manifest

from heinfer.circuit.ir import Circuit, Kind, Op
from heinfer.errors import BundleError, InsecureParametersError, NewerFormatError
from heinfer.formats import bundle as bundles
from heinfer.formats.bundle import Bundle, from_bytes, load, save, to_bytes
from heinfer.formats.circuit_tensors import DTYPES, MAX_ENTRIES, MAX_TEXT_BYTES, circuit_of, tensors_of
from heinfer.formats.manifest import KeysPart

PREAMBLE = struct.calcsize("<8sHQQ32s")
GOOD = to_bytes(sample_bundle())


def same(x: Bundle, y: Bundle) -> bool:
    a, b = x.circuit, y.circuit
    return (
        (x.manifest, x.bounds, dict(x.metadata)) == (y.manifest, y.bounds, dict(y.metadata))
        and (a.slots, a.ops, a.outputs, a.layers) == (b.slots, b.ops, b.outputs, b.layers)
        and [c.tobytes() for c in a.constants] == [c.tobytes() for c in b.constants]
    )


def sealed(payload: bytes, inflated: int) -> bytes:
    """A file with a right preamble around any payload."""
    return (
        struct.pack("<8sHQQ32s", b"heinferB", bundles.BUNDLE_VERSION, len(payload), inflated, sha256(payload).digest())
        + payload
    )


def tensors() -> dict[str, np.ndarray]:
    return {name: array.copy() for name, array in from_safetensors(lzma.decompress(GOOD[PREAMBLE:])).items()}


def file_of(arrays: dict[str, np.ndarray]) -> bytes:
    blob = to_safetensors(arrays)
    return sealed(lzma.compress(blob, preset=0), len(blob))


# What is written is what is read ---------------------------------------------------------------


def test_a_bundle_comes_back_as_it_was(tmp_path):
    path = tmp_path / "sample.heinfer"
    save(sample_bundle(), path)
    assert same(load(path), sample_bundle())
    assert path.read_bytes() == GOOD == to_bytes(load(path))
    assert [entry.name for entry in tmp_path.iterdir()] == ["sample.heinfer"]
    save(sample_bundle(), str(path))
    assert same(load(str(path)), sample_bundle())


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=8, max_size=8), max_size=4),
    scalar=st.floats(allow_nan=False, allow_infinity=False),
)
def test_constants_come_back_bit_for_bit(values, scalar):
    constants = (*(np.array(v) for v in values), np.array([scalar]))
    sums = tuple(Op(Kind.ADD_PLAIN, (number,), constant=number) for number in range(len(constants)))
    circuit = Circuit(8, (Op(Kind.INPUT, input=0), *sums), (len(sums),), constants)
    read = circuit_of(tensors_of(circuit), 8)
    assert [c.tobytes() for c in read.constants] == [c.tobytes() for c in constants]


def test_values_that_repeat_are_stored_once():
    rng = np.random.default_rng(0)
    weights = rng.normal(size=16)
    constants = tuple(weights[rng.integers(16, size=4096)] for _ in range(3))
    columns = tensors_of(Circuit(4096, (Op(Kind.INPUT, input=0),), (0,), constants))
    assert len(columns["constant.value"]) == 16


def test_a_circuit_without_constants_or_layers():
    circuit = Circuit(8, (Op(Kind.INPUT, input=0),), (0,))
    read = circuit_of(tensors_of(circuit), 8)
    assert (read.ops, read.outputs, read.constants, read.layers) == (circuit.ops, (0,), (), ())


# Files that are none ---------------------------------------------------------------------------


def test_a_truncated_or_changed_file_is_refused():
    for length in (0, 3, 8, 9, PREAMBLE - 1, PREAMBLE, PREAMBLE + 10, len(GOOD) - 1):
        with pytest.raises(BundleError):
            from_bytes(GOOD[:length])
    with pytest.raises(BundleError):
        from_bytes(GOOD + b"\0")
    for position in (*range(8), *range(10, PREAMBLE), PREAMBLE + 5, len(GOOD) - 1):
        with pytest.raises(BundleError):
            from_bytes(GOOD[:position] + bytes([GOOD[position] ^ 1]) + GOOD[position + 1 :])


def test_where_a_bundle_is_put_together_cannot_be_foreseen_and_nothing_of_it_stays(tmp_path, monkeypatch):
    path, seen = tmp_path / "sample.heinfer", []
    moved = Path.replace

    def replace_or_fail(temporary: Path, target: Path) -> Path:
        seen.append(temporary)
        assert temporary.parent == tmp_path
        if len(seen) == 2:
            raise OSError(5, "Input/output error")
        return moved(temporary, target)

    monkeypatch.setattr(Path, "replace", replace_or_fail)
    umask = os.umask(0o027)
    try:
        save(sample_bundle(), path)
        with pytest.raises(BundleError, match="Input/output error"):
            save(sample_bundle(), path)
    finally:
        os.umask(umask)
    assert seen[0] != seen[1]
    assert list(tmp_path.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o640  # what any new file would have: a server may be another user


def test_a_bundle_is_not_written_through_a_link_that_was_laid_for_it(tmp_path, monkeypatch):
    monkeypatch.setattr(bundles.secrets, "token_hex", lambda _bytes: "guessed")
    victim = tmp_path / "victim"
    victim.write_bytes(b"of another")
    (tmp_path / ".sample.heinfer.guessed").symlink_to(victim)
    with pytest.raises(BundleError, match="File exists"):
        save(sample_bundle(), tmp_path / "sample.heinfer")
    assert victim.read_bytes() == b"of another"


def test_a_newer_bundle_says_so_with_the_way_out(tmp_path):
    path = tmp_path / "new.heinfer"
    path.write_bytes(GOOD[:8] + struct.pack("<H", bundles.BUNDLE_VERSION + 1) + b"whatever it is")
    with pytest.raises(NewerFormatError, match=r"new\.heinfer: .*upgrade heinfer, or compile"):
        load(path)
    with pytest.raises(BundleError):
        from_bytes(GOOD[:8] + struct.pack("<H", 0) + GOOD[10:])


def test_a_bundle_of_format_1_opens():
    read, now = load(Path(__file__).parents[1] / "golden" / "bundle-1.heinfer"), sample_bundle()
    output = now.manifest.output.model_copy(update={"range": now.manifest.capacity_of(now.manifest.output)})
    assert same(read, replace(now, manifest=sample_manifest(outputs=(output,))))
    assert same(from_bytes(to_bytes(read)), read)


def test_a_file_that_cannot_be_read_or_written_is_a_bundle_error(tmp_path):
    with pytest.raises(BundleError, match="cannot be read"):
        load(tmp_path / "none")
    with pytest.raises(BundleError, match="cannot be written"):
        save(sample_bundle(), tmp_path / "none" / "x")


def test_payloads_that_are_no_xz_stream_or_another_length_are_refused(monkeypatch):
    blob = lzma.decompress(GOOD[PREAMBLE:])
    xz = lzma.compress(blob)
    payloads = [
        (b"", 0),
        (b"no xz", 100),
        (xz, len(blob) - 1),
        (xz, len(blob) + 1),
        (xz[:-1], len(blob)),
        (xz + b"\0", len(blob)),
        (xz + xz, len(blob)),
        (xz + xz, 2 * len(blob)),
        (lzma.compress(blob, format=lzma.FORMAT_ALONE), len(blob)),
        (xz, 1 << 63),
    ]
    for payload, inflated in payloads:
        with pytest.raises(BundleError):
            from_bytes(sealed(payload, inflated))
    assert same(from_bytes(sealed(xz, len(blob))), sample_bundle())
    monkeypatch.setattr(bundles, "MAX_FILE_BYTES", 1000)
    with pytest.raises(BundleError, match="at most"):
        from_bytes(bytes(1001))


def test_bombs_are_refused_before_they_grow():
    bomb = lzma.compress(bytes(1 << 25), preset=0)
    with pytest.raises(BundleError):
        from_bytes(sealed(bomb, 1000))
    with pytest.raises(BundleError, match="at most"):
        from_bytes(sealed(bomb, bundles.MAX_INFLATED_BYTES + 1))
    greedy = lzma.compress(b"", filters=[{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 1 << 28}])
    with pytest.raises(BundleError):
        from_bytes(sealed(greedy, 0))


@settings(max_examples=100, deadline=None)
@given(blob=st.binary(max_size=200))
def test_random_blobs_are_refused(blob):
    with pytest.raises(BundleError):
        from_bytes(sealed(lzma.compress(blob), len(blob)))


@pytest.mark.parametrize("name", ["op.kind", "constant.length", "outputs"])
def test_a_small_file_does_not_become_a_large_circuit(name):
    arrays = tensors()
    columns = [other for other in arrays if other.startswith("op.")] if name == "op.kind" else [name]
    for column in columns:
        arrays[column] = np.resize(arrays[column], (MAX_ENTRIES + 1, *arrays[column].shape[1:]))
    with pytest.raises(BundleError, match=f"at most {MAX_ENTRIES}"):
        circuit_of(arrays, PARAMETERS.slots)


@pytest.mark.parametrize("name", ["layers", "metadata"])
def test_texts_are_short(name):
    with pytest.raises(BundleError, match=f"{name}.* at most"):
        from_bytes(file_of(tensors() | {name: np.full(MAX_TEXT_BYTES + 1, ord(" "), dtype="<u1")}))


@pytest.mark.parametrize("shape", [[0, 1 << 62], [1 << 62, 0], [0, (1 << 64) - 1]])
def test_an_impossible_shape_is_refused(shape):
    blob = to_safetensors(tensors() | {"op.args": np.zeros((0, 2), dtype="<i4")})
    (length,) = struct.unpack_from("<Q", blob)
    header = json.loads(blob[8 : 8 + length])
    header["op.args"]["shape"] = shape
    text = json.dumps(header).encode()
    changed = struct.pack("<Q", len(text)) + text + blob[8 + length :]
    with pytest.raises(BundleError, match=r"op\.args has an impossible shape"):
        from_bytes(sealed(lzma.compress(changed), len(changed)))


def test_a_layer_writes_nothing_but_text_to_a_terminal():
    bundle = sample_bundle()
    layer = replace(bundle.circuit.layers[0], name="\x1b[2J")
    circuit = replace(bundle.circuit, layers=(layer, *bundle.circuit.layers[1:]))
    with pytest.raises(BundleError, match="control characters"):
        from_bytes(to_bytes(replace(bundle, circuit=circuit)))


# Contents that do not fit ----------------------------------------------------------------------


@pytest.mark.parametrize("name", [*DTYPES, "manifest", "metadata", "bounds"])
def test_each_array_must_be_there_in_its_type_and_form(name):
    array = tensors()[name]
    for wrong in (None, array.astype("<f4"), array[None], array.reshape(-1)[:0], array.astype("<i8")):
        arrays = tensors()
        if wrong is None:
            del arrays[name]
        else:
            arrays[name] = wrong
        with pytest.raises(BundleError):
            from_bytes(file_of(arrays))
    with pytest.raises(BundleError, match="not exactly the arrays"):
        from_bytes(file_of({**tensors(), "extra": np.zeros(1)}))


EXTREMES = [-(2**31), -3, -2, -1, 0, 1, 2, 3, 8, 9, 2047, 2048, 2**31 - 1]


@pytest.mark.parametrize(
    "name", ["op.kind", "op.args", "op.step", "op.constant", "op.input", "op.hoist", "op.layer", "outputs"]
)
def test_every_index_is_checked(name):
    """Any value in any place: refused, or a circuit that is valid as it stands."""
    flat = tensors()[name].reshape(-1)
    accepted = set()
    for position in range(len(flat)):
        for value in EXTREMES:
            arrays = tensors()
            column = arrays[name].reshape(-1)
            if value == column[position] or not np.iinfo(column.dtype).min <= value <= np.iinfo(column.dtype).max:
                continue
            column[position] = value
            try:
                bundle = from_bytes(file_of(arrays))
            except BundleError:
                continue
            accepted.add((position, value))
            for number, op in bundle.circuit:
                assert all(0 <= argument < number for argument in op.args)
                assert -1 <= op.layer < 2
                assert -1 <= op.constant < 2
    # What has no type of its own, and so may be any value in its range: another argument of the same type, another
    # constant, another layer, another hoisting group (or none).
    may_differ = {"op.args": 0, "op.constant": 0, "op.layer": -1, "op.hoist": -1}
    assert not accepted or all(value >= may_differ[name] for _, value in accepted)


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf, 2.0])
def test_a_wrong_plaintext_scale_is_refused(value):
    arrays = tensors()
    arrays["op.scale"][1] = value
    with pytest.raises(BundleError):
        from_bytes(file_of(arrays))


def test_a_scale_where_there_is_none_is_refused():
    arrays = tensors()
    arrays["op.scale"][4] = 1.0
    with pytest.raises(BundleError, match=r"op\.scale"):
        from_bytes(file_of(arrays))


@pytest.mark.parametrize(
    ("name", "position", "value"),
    [
        ("constant.length", 0, 2047),
        ("constant.length", 1, 0),
        ("constant.length", 0, -1),
        ("constant.index", 5, 5),
        ("constant.index", 5, 2**32 - 1),
        ("constant.value", 0, np.nan),
        ("constant.value", 0, np.inf),
        ("bounds", 3, -1.0),
        ("bounds", 3, np.nan),
        ("bounds", 3, np.inf),
        ("metadata", 0, ord("[")),
        ("layers", 1, ord("{")),
        ("manifest", 0, ord("[")),
    ],
)
def test_a_wrong_value_is_refused(name, position, value):
    arrays = tensors()
    arrays[name][position] = value
    with pytest.raises(BundleError):
        from_bytes(file_of(arrays))


def test_one_hoisting_group_has_one_source():
    arrays = tensors()
    arrays["op.args"][3, 0] = 2
    with pytest.raises(BundleError, match=r"op\.hoist"):
        from_bytes(file_of(arrays))


def test_an_insecure_manifest_is_refused():
    arrays = tensors()
    insecure = sample_manifest().to_bytes().replace(b'"ring_degree":4096', b'"ring_degree":2048')
    arrays["manifest"] = np.frombuffer(insecure, "<u1")
    with pytest.raises(InsecureParametersError):
        from_bytes(file_of(arrays))


def saved(path: Path, bundle: Bundle) -> None:
    try:
        save(bundle, path)
    finally:
        assert not list(path.parent.iterdir())


def test_what_could_not_be_loaded_is_not_saved(tmp_path):
    path, good = tmp_path / "x", sample_bundle()
    circuit, manifest = good.circuit, good.manifest
    with pytest.raises(BundleError, match="other evaluation keys"):
        saved(path, replace(good, manifest=sample_manifest(key_sets=(KeysPart.of({0: 1, 3: 1}),))))
    with pytest.raises(BundleError, match="other evaluation keys"):
        saved(path, replace(good, manifest=sample_manifest(key_sets=(KeysPart.of({3: 1, 5: 1}),))))
    with pytest.raises(BundleError, match="level and scale"):
        saved(path, replace(good, manifest=manifest.model_copy(update={"outputs": (scaled(manifest.output),)})))
    shorter = replace(circuit, ops=circuit.ops[:8], outputs=(7,))
    with pytest.raises(BundleError, match="level and scale"):
        saved(path, replace(good, circuit=shorter, bounds=good.bounds[:8]))
    with pytest.raises(BundleError, match="returns 2"):
        saved(path, replace(good, circuit=replace(circuit, outputs=(8, 8))))
    two_inputs = replace(circuit, ops=(*circuit.ops, Op(Kind.INPUT, input=1)))
    with pytest.raises(BundleError, match="takes 2"):
        saved(path, replace(good, circuit=two_inputs, bounds=(*good.bounds, 1.0)))
    with pytest.raises(BundleError, match="one finite bound"):
        saved(path, replace(good, bounds=good.bounds[1:]))
    dropped, product = Op(Kind.DROP_LEVEL, (4,), layer=0), replace(circuit.ops[6], args=(0, 5))
    two_levels = replace(
        circuit, ops=(*circuit.ops[:5], dropped, product, *circuit.ops[7:]), constants=circuit.constants[:1]
    )
    with pytest.raises(BundleError, match="act1: value 6"):
        saved(path, replace(good, circuit=two_levels))


def scaled(output):
    return output.model_copy(update={"scale": output.scale * 2})


def test_slots_must_be_half_the_ring_degree():
    bundle = sample_bundle()
    short = tuple(constant[:1024] for constant in bundle.circuit.constants)
    with pytest.raises(BundleError):
        from_bytes(to_bytes(replace(bundle, circuit=replace(bundle.circuit, slots=1024, constants=short))))
    assert bundle.circuit.slots == PARAMETERS.slots
