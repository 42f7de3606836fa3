"""What frames are bound to: other contents, another binding; the same contents, the same for ever."""

from __future__ import annotations

from hashlib import blake2b, sha256

import numpy as np
import pytest
from owner import Owner, binding_of
from samples import sample_manifest
from tiny_model import TINY, WIDE, tiny_bundle

from heinfer.errors import FrameBindingError, ServiceError, WrongAnswerError
from heinfer.formats.bindings import evaluation_binding, keys_binding, manifest_binding
from heinfer.formats.frames import decode_keys, encode_ciphertexts
from heinfer.formats.keys_part import KeysPart
from heinfer.formats.parameters_part import ParametersPart
from heinfer.formats.residues import CiphertextFrame

PARAMETERS = ParametersPart.of(TINY)
KEYS = KeysPart.of({0: 1, 3: 1, 5: 0})


def test_keys_are_bound_to_what_they_depend_on():
    """Ring, primes with their roles, digits, steps with levels: each alone makes keys others."""
    primes = TINY.data_primes
    others = [
        (PARAMETERS.model_copy(update={"ring_degree": 8192}), KEYS),
        (PARAMETERS.model_copy(update={"data_primes": primes[::-1]}), KEYS),
        (PARAMETERS.model_copy(update={"data_primes": primes[:-1]}), KEYS),
        (PARAMETERS.model_copy(update={"special_primes": (primes[-1],)}), KEYS),
        (
            PARAMETERS.model_copy(
                update={"data_primes": primes[:-1], "special_primes": (primes[-1], TINY.special_prime)}
            ),
            KEYS,
        ),
        (PARAMETERS.model_copy(update={"digits": (2, 1)}), KEYS),
        (PARAMETERS.model_copy(update={"digits": (1, 2)}), KEYS),
        (PARAMETERS, KeysPart.of({3: 1, 5: 0})),
        (PARAMETERS, KeysPart.of({0: 1, 3: 1})),
        (PARAMETERS, KeysPart.of({0: 1, 3: 0, 5: 1})),
        (PARAMETERS, KeysPart.of({0: 1, 3: 1, 7: 0})),
    ]
    assert len({keys_binding(*other) for other in [(PARAMETERS, KEYS), *others]}) == 1 + len(others)


def test_keys_are_bound_to_neither_name_nor_version_nor_scales():
    manifest = sample_manifest()
    output = manifest.output.model_copy(update={"labels": ("x", "y"), "scale": 3.0})
    other = manifest.model_copy(update={"name": "other", "model_version": "2", "outputs": (output,)})
    named = other.model_copy(update={"key_sets": (other.keys.model_copy(update={"name": "few"}),)})
    assert named.keys_binding == manifest.keys_binding
    assert manifest_binding(other.to_bytes()) != manifest_binding(manifest.to_bytes())


def test_the_bindings_are_what_the_document_says():
    """Written out once more, from docs/wire-format.md: whoever writes a client has to find the same."""
    words = [4096, 3, *TINY.data_primes, 1, TINY.special_prime, 3, 1, 1, 1, 3, 0, 1, 3, 1, 5, 0]
    text = b"heinfer keys 3\0" + b"".join(word.to_bytes(4, "little") for word in words)
    assert keys_binding(PARAMETERS, KEYS) == sha256(text).digest()
    manifest = sha256(b"a manifest").digest()
    text = b"heinfer evaluation 3\0" + manifest + sha256(b"an id").digest()
    text += blake2b(b"inputs", digest_size=32).digest()
    assert evaluation_binding(manifest_binding(b"a manifest"), "an id", b"inputs") == sha256(text).digest()


def test_an_answer_to_anything_else_is_refused():
    owner = Owner(tiny_bundle())
    inputs = owner.inputs(_image())
    asked = evaluation_binding(owner.codec.binding, "keys", inputs)
    for other in (
        evaluation_binding(manifest_binding(b"another manifest"), "keys", inputs),
        evaluation_binding(owner.codec.binding, "other keys", inputs),
        evaluation_binding(owner.codec.binding, "keys", owner.inputs(_image())),
    ):
        assert other != asked
        with pytest.raises(WrongAnswerError, match="nothing of it is used"):
            owner.codec.decrypt(owner.secret, _answer(owner, other), 1, asked)
    with pytest.raises(ServiceError):
        owner.codec.decrypt(owner.secret, _answer(owner, asked)[:-1], 1, asked)
    assert owner.codec.decrypt(owner.secret, _answer(owner, asked), 1, asked).scores.shape == (1, 4)
    assert binding_of(inputs) == owner.codec.binding


def test_keys_of_another_key_set_are_refused_by_name():
    owner, other = Owner(tiny_bundle()), tiny_bundle(parameters=WIDE).manifest
    with pytest.raises(FrameBindingError, match="another key set: make them from the manifest"):
        decode_keys(owner.keys, other.to_parameters(), other.keys_binding, other.keys.levels)


def _image() -> np.ndarray:
    return np.linspace(0, 1, 16).reshape(1, 4, 4)


def _answer(owner: Owner, binding: bytes) -> bytes:
    """Any frame of outputs under a binding."""
    part = owner.codec.manifest.output
    primes = owner.codec.parameters.primes_at(part.level)
    words = np.ones((len(primes), owner.codec.parameters.ring_degree), dtype=np.uint32)
    frame = CiphertextFrame(part.level, part.scale, words, words)
    return encode_ciphertexts(owner.codec.parameters, binding, [frame])
