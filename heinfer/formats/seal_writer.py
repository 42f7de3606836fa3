"""Writer of SEAL's bytes, uncompressed, from words that have been checked.

SEAL expands a seeded half itself when it loads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from heinfer.ckks.parameters import Parameters
from heinfer.ckks.seal import LIBRARY_VERSION
from heinfer.formats import seal_layout as layout
from heinfer.formats.residues import SEED_BYTES, CiphertextFrame, KeyFrame, Seed, Words


def write_ciphertext(frame: CiphertextFrame, parameters: Parameters) -> bytes:
    """SEAL bytes of a ciphertext, full or seeded."""
    primes = parameters.primes_at(frame.level)
    words = frame.c0 if frame.c1 is None else np.stack([frame.c0, frame.c1])
    return b"".join(_ciphertext(parameters, primes, frame.scale, words, frame.seed))


def write_keys(frames: Sequence[KeyFrame], parameters: Parameters) -> tuple[bytes | None, bytes | None]:
    """SEAL bytes of the Galois keys and of the relinearization key among the frames; None for what is not there."""
    galois = {layout.galois_slot(parameters, frame.step): frame for frame in frames if frame.step > 0}
    relinearization = dict(enumerate(frame for frame in frames if frame.step == 0))
    return (
        _key_container(galois, parameters, parameters.ring_degree) if galois else None,
        _key_container(relinearization, parameters, 1) if relinearization else None,
    )


def _key_container(frames: Mapping[int, KeyFrame], parameters: Parameters, slots: int) -> bytes:
    length = layout.keys_length(parameters, slots=slots, keys=len(frames))
    parts: list[bytes | memoryview] = [_header(length), layout.KEYS.pack(parameters.parameter_id, slots)]
    written = 0
    for slot, frame in sorted(frames.items()):
        parts.append(bytes((slot - written) * layout.SLOT.size))
        parts.append(layout.SLOT.pack(len(parameters.data_primes)))
        for digit, seed in _whole_digits(frame, parameters):
            parts += _ciphertext(parameters, parameters.primes, layout.KEY_SCALE, digit, seed)
        written = slot + 1
    parts.append(bytes((slots - written) * layout.SLOT.size))
    return b"".join(parts)


def _whole_digits(frame: KeyFrame, parameters: Parameters) -> Iterator[tuple[Words, Seed]]:
    """All digits over all primes, which SEAL wants; zeros stand for those above the key's level, which it never reads.

    At level l it reads the first l + 1 digits, modulo the first l + 1 primes and the special one (evaluator.cpp,
    switch_key_inplace).
    """
    used = frame.level + 1
    for digit, seed in zip(frame.digits, frame.seeds, strict=True):
        whole = np.zeros((len(parameters.primes), parameters.ring_degree), dtype=np.uint32)
        whole[:used], whole[-1] = digit[:used], digit[-1]
        yield whole, seed
    empty = np.zeros((len(parameters.primes), parameters.ring_degree), dtype=np.uint32)
    for _ in range(used, len(parameters.data_primes)):
        yield empty, Seed(bytes(SEED_BYTES))


def _ciphertext(
    parameters: Parameters, primes: Sequence[int], scale: float, words: Words, seed: Seed | None
) -> list[bytes | memoryview]:
    ring_degree, count = parameters.ring_degree, len(primes)
    array_length = layout.HEADER.size + layout.ARRAY_COUNT.size + words.size * layout.WORD_BYTES
    parts: list[bytes | memoryview] = [
        _header(layout.ciphertext_length(ring_degree, count, seeded=seed is not None)),
        layout.CIPHERTEXT.pack(parameters.parms_id(primes), 1, 2, ring_degree, count, scale, 1),
        _header(array_length),
        layout.ARRAY_COUNT.pack(words.size),
        words.astype("<u8").data,
    ]
    if seed is not None:
        parts += [_header(layout.HEADER.size + layout.PRNG.size), layout.PRNG.pack(seed.prng, seed.data)]
    return parts


def _header(length: int) -> bytes:
    return layout.HEADER.pack(layout.MAGIC, layout.HEADER.size, *LIBRARY_VERSION, layout.MODE_NONE, 0, length)
