"""The same circuit on the same words, on SEAL and on the native library: every word of both results, side by side.

An evaluator cannot tell a ciphertext or a key from any other words, so words are chosen, and no secret key is needed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias
from unittest.mock import patch

import numpy as np
import pytest
import zstandard
from numpy.typing import NDArray
from rings import insecure_ring
from tenseal import sealapi

from heinfer.backends.memory import plaintext_keys
from heinfer.backends.native import NativeKeys, NativeOptions, NativeProgram, NativeRing
from heinfer.backends.native.library import library
from heinfer.backends.seal.program import TensealProgram
from heinfer.circuit.ir import Circuit, SlotVector
from heinfer.circuit.typed import TypedCircuit
from heinfer.ckks.evaluation import EvaluationSide
from heinfer.ckks.parameters import Parameters
from heinfer.ckks.seal import LIBRARY_VERSION, SealObject, from_bytes, to_bytes
from heinfer.formats import seal_layout as layout
from heinfer.formats.residues import CiphertextFrame, KeyFrame, Seed, Words
from heinfer.formats.seal_writer import write_ciphertext, write_keys

pytest.importorskip("heinfer_native", reason="heinfer-native is not built: make setup does where a C++ compiler is")

Pair: TypeAlias = tuple[Words, Words]
"""A ciphertext's polynomials, (level + 1, N) each."""

Draw = Literal["random", "extreme"]


def instruction_sets() -> list[str]:
    """Those that this processor has, the fastest first."""
    return list(library().instruction_sets())


def words_below(rng: np.random.Generator, primes: Sequence[int], shape: tuple[int, ...], draw: Draw) -> Words:
    """Words of shape (*shape, primes, N) for shape (..., N): uniform ones, or only 0 and q - 1."""
    *batch, ring_degree = shape
    bounds = np.array(primes, dtype=np.int64)[:, None]
    size = (*batch, len(primes), ring_degree)
    words = rng.integers(0, bounds, size) if draw == "random" else (bounds - 1) * rng.integers(0, 2, size)
    return words.astype(np.uint32)


def words_of(ciphertext: SealObject) -> Words:
    """(polynomials, primes, N) words of SEAL's ciphertext of any size."""
    data = to_bytes(ciphertext)
    body = zstandard.ZstdDecompressor().decompress(data[layout.HEADER.size :])
    _, _, polynomials, ring_degree, primes, _, _ = layout.CIPHERTEXT.unpack_from(body)
    start = layout.CIPHERTEXT.size + layout.HEADER.size + layout.ARRAY_COUNT.size
    words: NDArray[np.uint64] = np.frombuffer(body, "<u8", offset=start).reshape(polynomials, primes, ring_degree)
    return words.astype(np.uint32)


def plaintext_of(words: Words, scale: float, parms_id: bytes, context: SealObject) -> SealObject:
    """SEAL's plaintext of (primes, N) words."""
    version, count = LIBRARY_VERSION, struct.pack("<Q", words.size)
    inner = layout.HEADER.size + layout.ARRAY_COUNT.size + words.size * layout.WORD_BYTES
    array = layout.HEADER.pack(layout.MAGIC, 16, *version, 0, 0, inner) + count + words.astype("<u8").tobytes()
    body = parms_id + count + struct.pack("<d", scale) + array
    head = layout.HEADER.pack(layout.MAGIC, 16, *version, 0, 0, layout.HEADER.size + len(body))
    return from_bytes(sealapi.Plaintext(), context, head + body)


@dataclass(frozen=True, eq=False)
class Twin:
    """SEAL and the native library with the same evaluation keys, in one ring without a security check.

    Attributes:
        parameters: of the ring.
        steps: of the rotations that there are keys for; there is a relinearization key, too.
        draw: what the words of keys and ciphertexts are.
        seed: of the random numbers they are chosen by.
    """

    parameters: Parameters
    steps: tuple[int, ...]
    draw: Draw = "random"
    seed: int = 0

    @cached_property
    def keys(self) -> tuple[KeyFrame, ...]:
        rng = np.random.default_rng(self.seed)
        digits = len(self.parameters.data_primes)

        def key(step: int) -> KeyFrame:
            words = words_below(rng, self.parameters.primes, (digits, self.parameters.ring_degree), self.draw)
            return KeyFrame(step, words, tuple(Seed(rng.bytes(64)) for _ in range(digits)))

        return tuple(key(step) for step in (0, *sorted(self.steps)))

    @cached_property
    def seal(self) -> EvaluationSide:
        side = EvaluationSide(insecure_ring(self.parameters))
        side.load_keys(*write_keys(self.keys, self.parameters))
        return side

    def ciphertexts(self, count: int, level: int) -> list[Pair]:
        """Input ciphertexts of chosen words."""
        rng = np.random.default_rng(self.seed + 1)
        primes, size = self.parameters.primes_at(level), (self.parameters.ring_degree,)
        return [tuple(words_below(rng, primes, size, self.draw) for _ in range(2)) for _ in range(count)]  # type: ignore[misc]

    def on_seal(self, circuit: Circuit, inputs: Sequence[Pair], level: int, scale: float) -> list[Words]:
        """Outputs of SEAL, its plaintexts encoded by the native library."""
        return run_on_seal(self.seal, TypedCircuit(circuit, self.parameters, level, scale), inputs)

    def on_native(
        self,
        circuit: Circuit,
        inputs: Sequence[Pair],
        level: int,
        scale: float,
        *,
        kernels: str = "",
        threads: int = 1,
        exact: bool = True,
    ) -> list[Words]:
        """Outputs of the native library."""
        ring, typed = NativeRing(self.parameters, kernels), TypedCircuit(circuit, self.parameters, level, scale)
        program = NativeProgram(typed, ring, NativeOptions(threads), exact=exact)
        return program.run(inputs, self.native_keys(ring, program, threads))

    def native_keys(self, ring: NativeRing, program: NativeProgram, threads: int = 1) -> NativeKeys:
        keys = NativeKeys(ring, program.typed.key_levels, threads)
        for frame in self.keys:
            keys.add(frame.step, frame.digits, [seed.data for seed in frame.seeds])
        return keys

    def assert_equal(self, circuit: Circuit, level: int, scale: float, kernels: Iterable[str] = ("",)) -> None:
        """Assert that every word of every output is SEAL's, for some instruction sets."""
        inputs = self.ciphertexts(circuit.inputs, level)
        expected = self.on_seal(circuit, inputs, level, scale)
        for name in kernels:
            got = self.on_native(circuit, inputs, level, scale, kernels=name)
            for output, mine, theirs in zip(circuit.outputs, got, expected, strict=True):
                kind = circuit.ops[output].kind
                np.testing.assert_array_equal(mine, theirs, err_msg=f"{kind} at level {level}, {name or 'default'}")


def run_on_seal(side: EvaluationSide, typed: TypedCircuit, inputs: Sequence[Pair]) -> list[Words]:
    """Output words of SEAL, its plaintexts encoded by the native library: encoders may round differently."""
    plaintexts = _plaintexts(side, typed)
    with patch("heinfer.backends.seal.program._Encoder.encode_all", return_value=plaintexts):
        program = TensealProgram(typed, side.ring)
    frames = [CiphertextFrame(typed.input_level, typed.input_scale, *words) for words in inputs]
    loaded = [side.load_ciphertext(write_ciphertext(frame, side.parameters)) for frame in frames]
    return [words_of(c) for c in program.run(loaded, side)]


def _plaintexts(side: EvaluationSide, typed: TypedCircuit) -> dict[int, SealObject]:
    parameters, ring = side.parameters, NativeRing(side.parameters)
    plaintexts: dict[int, SealObject] = {}
    for number, (constant, at, encoded_scale) in plaintext_keys(typed).items():
        primes = parameters.primes_at(at)
        words = encoded(ring, typed.circuit.constants[constant], encoded_scale, primes)
        plaintexts[number] = plaintext_of(words, encoded_scale, parameters.parms_id(primes), side.context)
    return plaintexts


def encoded(ring: NativeRing, vector: SlotVector, scale: float, primes: Sequence[int]) -> Words:
    """(primes, N) words of a constant as the library encodes it; what rounds to zero is 1, as on both backends."""
    n = ring.parameters.ring_degree
    if vector.size == 1:
        integer = int(np.floor(abs(float(vector[0]) * scale) + 0.5)) * (-1 if vector[0] < 0 else 1)
        words = np.array([integer % q for q in primes], dtype=np.uint32)[:, None].repeat(n, axis=1)
    else:
        slots = np.ascontiguousarray(vector, dtype=np.float64)
        words = np.asarray(library().encode(ring.handle, slots, scale, list(range(len(primes)))))
    return words if words.any() else np.ones_like(words)
