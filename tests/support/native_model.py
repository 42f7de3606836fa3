"""A bundle on both backends with a client's real keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from twin import run_on_seal, words_of

from heinfer.backends.cleartext import Simulation, simulate
from heinfer.backends.native import NativeKeys, NativeOptions, NativeProgram, NativeRing
from heinfer.backends.seal.program import TensealProgram
from heinfer.ckks.evaluation import EvaluationSide
from heinfer.ckks.secret import SecretSide
from heinfer.formats.bundle import Bundle
from heinfer.formats.frames import decode_ciphertexts, decode_keys
from heinfer.formats.residues import CiphertextFrame, KeyFrame, Words
from heinfer.formats.seal_writer import write_ciphertext, write_keys
from heinfer_client.codec import Codec

Slots = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class NativeModel:
    """A bundle with a new secret key, and what both backends need of it."""

    bundle: Bundle

    @cached_property
    def codec(self) -> Codec:
        return Codec(self.bundle.manifest)

    @cached_property
    def secret(self) -> SecretSide:
        return SecretSide.generate(self.codec.parameters)

    @cached_property
    def keys(self) -> tuple[KeyFrame, ...]:
        data = self.codec.evaluation_keys(self.secret, lambda _done: None)
        return decode_keys(
            data, self.codec.parameters, self.codec.manifest.keys_binding, self.codec.manifest.keys.levels
        )

    @cached_property
    def seal(self) -> EvaluationSide:
        side = EvaluationSide.create(self.codec.parameters)
        side.load_keys(*write_keys(self.keys, self.codec.parameters))
        return side

    @cached_property
    def ring(self) -> NativeRing:
        return NativeRing.secure(self.codec.parameters)

    def program(self, threads: int = 1, *, exact: bool = False) -> NativeProgram:
        return NativeProgram(self.bundle.typed, self.ring, NativeOptions(threads), exact=exact)

    def native_keys(self, program: NativeProgram) -> NativeKeys:
        keys = NativeKeys(self.ring, program.typed.key_levels)
        for frame in self.keys:
            keys.add(frame.step, frame.digits, [seed.data for seed in frame.seeds])
        return keys

    def encrypt(self, image: NDArray[np.uint8]) -> tuple[CiphertextFrame, ...]:
        part = self.bundle.manifest.input
        data = self.codec.encrypt(self.secret, [self.codec.read_image(image)])
        return decode_ciphertexts(
            data,
            self.codec.parameters,
            self.codec.binding,
            count=part.layout.ciphertexts,
            level=part.level,
            scale=part.scale,
            seeded=True,
        )

    def words(self, frames: Sequence[CiphertextFrame]) -> list[tuple[Words, Words]]:
        """Seeded ciphertexts, expanded by the library."""
        primes = self.codec.parameters.primes_at(frames[0].level)
        return [(f.c0, self.ring.expand(f.seed.data, primes)) for f in frames if f.seed is not None]

    def on_seal(self, frames: Sequence[CiphertextFrame], *, same_plaintexts: bool) -> list[Words]:
        """Output words of SEAL, with the native library's plaintexts or its own."""
        if same_plaintexts:
            return run_on_seal(self.seal, self.bundle.typed, self.words(frames))
        program = TensealProgram(self.bundle.typed, self.seal.ring)
        loaded = [self.seal.load_ciphertext(write_ciphertext(f, self.codec.parameters)) for f in frames]
        return [words_of(c) for c in program.run(loaded, self.seal)]

    def decrypt(self, outputs: Sequence[Words]) -> Slots:
        """(ciphertexts, slots) of output words."""
        part, parameters = self.bundle.manifest.output, self.codec.parameters
        frames = [CiphertextFrame(part.level, part.scale, *words) for words in outputs]
        return np.stack([self.secret.decrypt(write_ciphertext(frame, parameters)).real for frame in frames])

    def simulate(self, image: NDArray[np.uint8]) -> Simulation:
        """The same image in cleartext, with the noise that the model of it predicts."""
        packed = self.codec.pack([self.codec.read_image(image)])
        return simulate(self.bundle.typed, self.bundle.bounds, packed)


def assert_as_noisy_as_predicted(error: Slots, deviation: Slots) -> None:
    """Assert that errors in slots are what the noise model's deviation allows, one by one and on the whole.

    A digit's value at a root times its key's error at it is a product of two normal numbers, beyond t deviations with a
    probability near exp(-t): 20 of them for one of 10^4 slots once in 10^5 runs, had nothing else a share in it. The
    errors of one key are in all slots that reductions sum, so the mean over slots is not that over keys: 3 of them.
    """
    relative = error / deviation
    assert np.abs(relative).max() <= 20
    assert np.sqrt(np.mean(relative**2)) <= 3
