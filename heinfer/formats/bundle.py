"""The bundle: the file of a compiled model, which may come from an untrusted source.

A preamble (magic, version, lengths, SHA-256 of the payload, against damage), then the payload: a safetensors blob
compressed by xz. The blob holds the manifest and the metadata as JSON, the circuit as arrays (circuit_tensors.py) and
the bounds. Equal bundles have equal bytes. Version 1, with a manifest of version 2, is read (manifest_2.py).
"""

from __future__ import annotations

import json
import lzma
import secrets
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import safetensors
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from safetensors.numpy import save as to_safetensors

from heinfer.brief import brief_repr
from heinfer.circuit.annotate import ValueType
from heinfer.circuit.ir import Circuit
from heinfer.circuit.typed import TypedCircuit
from heinfer.circuit.validate import validate
from heinfer.errors import BundleError, CircuitError, ManifestError, NewerFormatError, RangeError
from heinfer.formats.circuit_tensors import DTYPES, MAX_TEXT_BYTES, Tensors, circuit_of, tensors_of
from heinfer.formats.files import read_regular
from heinfer.formats.manifest import Manifest, parse_manifest
from heinfer.formats.manifest_2 import upgraded

BUNDLE_VERSION = 3
MAX_FILE_BYTES = 1 << 28
MAX_INFLATED_BYTES = 1 << 30

MOST_INFLATION = 1 << 8
"""Bytes of the blob for each of the payload, beyond `FREE_INFLATION`; the shipped bundles have up to 68."""
FREE_INFLATION = 1 << 24
BYTES_PER_OPERATION = 1 << 4
"""Of the payload, beyond `FREE_OPERATIONS`; the shipped bundles have 230 and more."""
FREE_OPERATIONS = 1 << 14

_MAGIC = b"heinferB"
_HEAD = struct.Struct("<8sH")
_LENGTHS = struct.Struct("<QQ32s")
"""Length of the payload, length of the blob, SHA-256 of the payload."""
_XZ_MEMORY = 1 << 26
_PIECE = 1 << 20
_LARGE = 1 << 28
"""Bytes of a blob from which on it is compressed faster: in a fifth of the time, by a thirtieth less."""
_MAX_HEADER_BYTES = 1 << 16
"""Of the safetensors blob: the names and places of a few arrays."""
_DTYPES = {**DTYPES, "manifest": ("<u1", 1), "metadata": ("<u1", 1), "bounds": ("<f8", 1)}
_SAFETENSORS_NAMES = {"<u1": "U8", "<i4": "I32", "<u4": "U32", "<f8": "F64"}
_METADATA: TypeAdapter[dict[str, str]] = TypeAdapter(dict[str, str])


@dataclass(frozen=True)
class Bundle:
    """A compiled model.

    Attributes:
        manifest: what clients get.
        circuit: what a backend runs.
        bounds: bound on |slot value| of every value of the circuit.
        metadata: what reports say of the model: free text by name.
    """

    manifest: Manifest
    circuit: Circuit
    bounds: tuple[float, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)

    __repr__ = brief_repr

    @cached_property
    def typed(self) -> TypedCircuit:
        """The circuit with what the manifest says of its parameters and inputs."""
        image = self.manifest.input
        return TypedCircuit(self.circuit, self.manifest.to_parameters(), image.level, image.scale)

    def _about(self) -> str:
        model = f"{self.manifest.name} {self.manifest.model_version}"
        return f"{model}: {len(self.circuit.ops)} operations on N={self.manifest.parameters.ring_degree}"


class HasBundle(Protocol):
    """What compiling gives: a bundle, and what it was made of."""

    @property
    def bundle(self) -> Bundle:
        """What a server gets."""


def save(model: Bundle | HasBundle, path: Path | str) -> None:
    """Write a bundle, or that of a compiled model, whole or not at all.

    Raises:
        BundleError: when there is no bundle that :func:`load` would take, or the file cannot be written.
    """
    bundle = getattr(model, "bundle", model)
    if not isinstance(bundle, Bundle):
        raise BundleError(f"a compiled model or its bundle can be saved, not a {type(model).__name__}")
    data = to_bytes(bundle)
    from_bytes(data)
    write_whole(Path(path), data)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all; BundleError when it cannot be written."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        # As tempfile does it, but for the mode: a server that runs as another user is to read the bundle.
        with temporary.open("xb") as file:
            file.write(data)
        temporary.replace(path)
    except OSError as error:
        raise BundleError(f"{path} cannot be written: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)


def load(path: Path | str) -> Bundle:
    """Open a bundle from an untrusted source.

    Raises:
        BundleError: when the file cannot be read, is no bundle, or a damaged or inconsistent one.
        NewerFormatError: when a newer heinfer wrote it.
        InsecureParametersError: when its parameters are below 128 bits.
    """
    return opened(path, read(path))


def read(path: Path | str) -> bytes:
    """The bytes of a bundle's file, not looked at and not many more than there may be; BundleError without any."""
    try:
        return read_regular(Path(path), MAX_FILE_BYTES + 1)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from None


def opened(path: Path | str, data: bytes) -> Bundle:
    """The bundle of bytes that :func:`read` gave; raises what :func:`load` does, with the file's name."""
    try:
        return from_bytes(data)
    except (BundleError, NewerFormatError) as error:
        raise type(error)(f"{path}: {error}") from error


def to_bytes(bundle: Bundle) -> bytes:
    """The bytes of a bundle's file."""
    tensors = {
        **tensors_of(bundle.circuit),
        "manifest": np.frombuffer(bundle.manifest.to_bytes(), "<u1"),
        "metadata": np.frombuffer(json.dumps(dict(bundle.metadata), sort_keys=True).encode(), "<u1"),
        "bounds": np.array(bundle.bounds, dtype="<f8"),
    }
    blob = to_safetensors(tensors)
    del tensors  # the blob has their bytes
    payload = _deflate(blob)
    lengths = _LENGTHS.pack(len(payload), len(blob), sha256(payload).digest())
    return _HEAD.pack(_MAGIC, BUNDLE_VERSION) + lengths + payload


def from_bytes(data: bytes) -> Bundle:
    """Read a bundle from the bytes of its file; raises what :func:`load` does."""
    version, blob = _open(data)
    tensors = _tensors(blob)
    del blob  # as long as the arrays, of which it holds the bytes
    operations, most = len(tensors["op.kind"]), FREE_OPERATIONS + len(data) // BYTES_PER_OPERATION
    if operations > most:
        raise BundleError(
            f"a bundle of {len(data)} bytes has at most {most} operations, not {operations}: so many are not the "
            "network's, compile the model again, or get the bundle from who did"
        )
    if len(tensors["metadata"]) > MAX_TEXT_BYTES:
        raise BundleError(f"the metadata has at most {MAX_TEXT_BYTES} bytes")
    try:
        told = tensors["manifest"].tobytes()
        manifest = parse_manifest(told) if version == BUNDLE_VERSION else upgraded(told)
        metadata = _METADATA.validate_json(tensors["metadata"].tobytes())
    except ManifestError as error:
        raise BundleError(str(error)) from None
    except ValidationError:
        raise BundleError("the metadata is malformed") from None
    circuit = circuit_of(tensors, manifest.to_parameters().slots)
    bounds = tensors["bounds"]
    if len(bounds) != len(circuit.ops) or not (np.isfinite(bounds) & (bounds >= 0)).all():
        raise BundleError("there must be one finite bound for each value of the circuit")
    bundle = Bundle(manifest, circuit, tuple(bounds.tolist()), metadata)
    _check_against_manifest(bundle)
    return bundle


def _check_against_manifest(bundle: Bundle) -> None:
    circuit, manifest = bundle.circuit, bundle.manifest
    try:
        validate(bundle.typed, bundle.bounds)
    except (CircuitError, RangeError) as error:
        raise BundleError(f"the circuit is invalid: {error}") from None
    if circuit.inputs != manifest.input.layout.ciphertexts:
        raise BundleError(f"the circuit takes {circuit.inputs} ciphertexts, not the manifest's")
    if len(circuit.outputs) != manifest.output.layout.ciphertexts:
        raise BundleError(f"the circuit returns {len(circuit.outputs)} ciphertexts, not the manifest's")
    if set(bundle.typed.output_types) != {ValueType(manifest.output.level, manifest.output.scale)}:
        raise BundleError("the circuit's outputs have not the manifest's level and scale, or three polynomials")
    if bundle.typed.key_levels != manifest.keys.levels:
        raise BundleError("the circuit needs other evaluation keys than the manifest lists, or at other levels")


def _open(data: bytes) -> tuple[int, bytes]:
    """Check the preamble and return the version and the blob, inflated to the promised length and no further."""
    if len(data) > MAX_FILE_BYTES:
        raise BundleError(f"a bundle has at most {MAX_FILE_BYTES} bytes")
    if len(data) < _HEAD.size or not data.startswith(_MAGIC):
        raise BundleError("the file is no bundle of heinfer")
    _, version = _HEAD.unpack_from(data)
    if version > BUNDLE_VERSION:
        raise NewerFormatError(
            f"the bundle has format {version}, this heinfer reads up to {BUNDLE_VERSION}: upgrade heinfer, "
            "or compile the model with this one"
        )
    start = _HEAD.size + _LENGTHS.size
    if version not in (1, BUNDLE_VERSION) or len(data) < start:
        raise BundleError("the bundle is damaged")
    length, inflated_length, digest = _LENGTHS.unpack_from(data, _HEAD.size)
    payload = data[start:]
    if length != len(payload) or digest != sha256(payload).digest():
        raise BundleError("the bundle is damaged: fetch or compile it again")
    if inflated_length > MAX_INFLATED_BYTES:
        raise BundleError(f"a bundle inflates to at most {MAX_INFLATED_BYTES} bytes")
    most = FREE_INFLATION + MOST_INFLATION * len(payload)
    if inflated_length > most:
        raise BundleError(
            f"a bundle of {len(payload)} bytes of payload inflates to at most {most}, not {inflated_length}: so much "
            "is not the network's, compile the model again, or get the bundle from who did"
        )
    return version, _inflate(payload, inflated_length)


def _deflate(blob: bytes) -> bytes:
    """In pieces, between which Ctrl-C is heard: a large bundle takes a minute."""
    preset = 6 if len(blob) < _LARGE else 1
    compressor = lzma.LZMACompressor(format=lzma.FORMAT_XZ, check=lzma.CHECK_NONE, preset=preset)
    view = memoryview(blob)
    pieces = [compressor.compress(view[at : at + _PIECE]) for at in range(0, len(view), _PIECE)]
    return b"".join([*pieces, compressor.flush()])


def _inflate(payload: bytes, length: int) -> bytes:
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
    try:
        blob = decompressor.decompress(payload, max_length=length + 1)
    except lzma.LZMAError:
        raise BundleError("the bundle's payload is no xz stream") from None
    if len(blob) != length or not decompressor.eof or decompressor.unused_data:
        raise BundleError("the bundle's payload has another length than promised")
    return blob


def _tensors(blob: bytes) -> Tensors:
    """The arrays of a safetensors blob: exactly the expected names, each of its dtype and number of axes."""
    if int.from_bytes(blob[:8], "little") > _MAX_HEADER_BYTES:
        raise BundleError(f"the bundle's list of arrays has at most {_MAX_HEADER_BYTES} bytes")
    try:
        found: dict[str, dict[str, Any]] = dict(safetensors.deserialize(blob))  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError:
        raise BundleError("the bundle's payload is no safetensors blob") from None
    if found.keys() != _DTYPES.keys():
        raise BundleError("the bundle has not exactly the arrays of its format")
    tensors: dict[str, NDArray[Any]] = {}
    for name, (dtype, axes) in _DTYPES.items():
        entry = found[name]
        if entry["dtype"] != _SAFETENSORS_NAMES[dtype] or len(entry["shape"]) != axes:
            raise BundleError(f"the bundle's {name} must be {dtype} of {axes} axes")
        try:
            tensors[name] = np.frombuffer(entry["data"], dtype).reshape(entry["shape"])
        except ValueError:  # no entries on one axis, more than there can be on the other
            raise BundleError(f"the bundle's {name} has an impossible shape") from None
    return tensors
