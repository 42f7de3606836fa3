"""What a client demands of a manifest before it makes a key for it: the server is not trusted with that."""

from __future__ import annotations

from math import log2
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from heinfer.ckks.security import MAX_LOG_QP_128
from heinfer.errors import HeinferError, ManifestError, ParameterError, SettingError, UntrustedManifestError
from heinfer.formats.frames import ciphertexts_length, keys_length
from heinfer.formats.manifest import Manifest, parse_manifest

MAX_KEYS = 1024
MAX_KEY_BYTES = 1 << 30  # ten times what the shipped models need
MAX_MADE_BYTES = 1 << 32
"""Of keys as they are made, for all levels, before each is cut to its own: it bounds the time of that, to minutes."""

MAX_INPUT_BYTES = 1 << 30
MAX_OUTPUT_BYTES = 1 << 27


_FEWER_KEYS = "if the server is the one you mean, ask for its model compiled with fewer rotation keys or a smaller ring"


class _Claim(BaseModel):
    format: Literal["heinfer-manifest"]


def claims_to_be_manifest(data: bytes) -> bool:
    """Whether bytes say that they are a manifest, be it a malformed one."""
    try:
        _Claim.model_validate_json(data)
    except ValidationError:
        return False
    return True


def trusted_manifest(data: bytes, model: str) -> Manifest:
    """Parse the manifest that a server gave for `model` and check what an attack or a mistake would get wrong.

    The security of its parameters is looked up in our own table, as part of parsing.

    Raises:
        UntrustedManifestError: when it is malformed, below 128-bit security, of another model, or asks for too much.
        NewerFormatError: when a newer heinfer wrote it.
    """
    try:
        manifest = parse_manifest(data)
    except (ManifestError, ParameterError) as error:
        raise UntrustedManifestError(f"the server's manifest of {model} is refused: {error}") from error
    if manifest.name != model:
        raise UntrustedManifestError(f"the manifest of {model} is asked for, the server gives that of {manifest.name}")
    reason = _excess(manifest)
    if reason:
        raise UntrustedManifestError(f"the server's manifest of {model} is refused: {reason}")
    return manifest


def pinned_manifest(manifest: bytes | Path, model: str) -> bytes:
    """The bytes of a manifest that a user gives, as they are or in a file; SettingError when it is none of `model`."""
    try:
        data = manifest if isinstance(manifest, bytes) else Path(manifest).read_bytes()
        trusted_manifest(data, model)
    except OSError as error:
        raise SettingError(f"the manifest {error.filename} cannot be read: {error.strerror}") from None
    except TypeError:
        raise SettingError("manifest must be the bytes of a manifest, or the path of a file that holds them") from None
    except HeinferError as error:
        raise SettingError(f"the manifest to pin does not serve: {error}") from error
    return data


def _excess(manifest: Manifest) -> str | None:
    parameters = manifest.to_parameters()
    keys, packed, scores = manifest.keys, manifest.input, manifest.output
    if parameters.ring_degree > max(MAX_LOG_QP_128):
        return f"a ring degree of at most {max(MAX_LOG_QP_128)} is accepted, not {parameters.ring_degree}"
    if len(keys.steps) > MAX_KEYS:
        return f"at most {MAX_KEYS} rotation keys are accepted, not {len(keys.steps)}"
    key_bytes = keys_length(parameters, keys.levels)
    if key_bytes > MAX_KEY_BYTES:
        return f"at most {MAX_KEY_BYTES} bytes of evaluation keys are made and sent, not {key_bytes}: {_FEWER_KEYS}"
    made = keys_length(parameters, dict.fromkeys(keys.levels, parameters.top_level))
    if made > MAX_MADE_BYTES:
        return f"at most {MAX_MADE_BYTES} bytes of evaluation keys for all levels are made, not {made}: {_FEWER_KEYS}"
    input_bytes = ciphertexts_length(parameters, count=packed.layout.ciphertexts, level=packed.level, seeded=True)
    if input_bytes > MAX_INPUT_BYTES:
        return f"at most {MAX_INPUT_BYTES} bytes of input are accepted, not {input_bytes}"
    output_bytes = ciphertexts_length(parameters, count=scores.layout.ciphertexts, level=scores.level, seeded=False)
    if output_bytes > MAX_OUTPUT_BYTES:
        return f"at most {MAX_OUTPUT_BYTES} bytes of output are accepted, not {output_bytes}"
    if packed.scale < 1 or scores.scale < 1:
        return "a scale is below 1: nothing would be left of the values but noise"
    modulus_bits = sum(log2(prime) for prime in parameters.primes_at(scores.level))
    if log2(scores.scale) >= modulus_bits - 1:
        return "the output's scale reaches half the modulus at its level: every score would be noise"
    return None
