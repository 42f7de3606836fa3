"""A circuit as the native library takes it: instructions in waves, places in memory, and all of it as flat arrays."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from math import inf

import numpy as np
from numpy.typing import NDArray

from heinfer.backends.native.arena import Arena, place
from heinfer.backends.native.fusion import fuse
from heinfer.backends.native.instructions import (
    Constant,
    Division,
    Extension,
    Instruction,
    Product,
    Relinearization,
    Residues,
    Rotations,
    Sum,
    code_of,
    rows_needed,
)
from heinfer.backends.native.library import library
from heinfer.backends.native.residents import is_scalar, kept_words, within
from heinfer.backends.native.waves import Wave, in_waves
from heinfer.circuit.ir import Kind
from heinfer.circuit.typed import TypedCircuit

Numbers = NDArray[np.int64]

_WORD_BYTES = 4


@dataclass(frozen=True, eq=False)
class NativePlan:
    """A circuit, ready to be loaded.

    Attributes:
        typed: what it computes.
        waves: its instructions.
        residues: of its values, by number.
        arena: where they lie.
        constants: what is encoded.
    """

    typed: TypedCircuit
    waves: tuple[Wave, ...]
    residues: tuple[Residues, ...]
    arena: Arena
    constants: tuple[Constant, ...]

    @property
    def instructions(self) -> Iterator[Instruction]:
        """All instructions, in order."""
        return (instruction for wave in self.waves for instruction in wave)

    @cached_property
    def inputs(self) -> tuple[int, ...]:
        """Values of the input ciphertexts, by ciphertext."""
        numbers = {op.input: number for number, op in self.typed.circuit if op.kind is Kind.INPUT}
        return tuple(numbers[ciphertext] for ciphertext in range(len(numbers)))

    @cached_property
    def constant_bytes(self) -> int:
        """Memory of all that is kept of constants."""
        return self.constant_words * _WORD_BYTES

    @property
    def constant_words(self) -> int:
        """The same in words."""
        sums = (i for i in self.instructions if isinstance(i, Sum))
        return sum(kept_words(i, self.typed, self.residues) for i in sums)

    def run_bytes(self, threads: int = 1) -> int:
        """Memory of a run: every value at its place, and what threads need for themselves."""
        own = max((rows_needed(instruction, self.residues)[1] for instruction in self.instructions), default=0)
        row_bytes = library().row_stride(self.typed.parameters.ring_degree) * _WORD_BYTES
        return (self.arena.rows + threads * own) * row_bytes

    def identity(self) -> bytes:
        """32 bytes that stand for all that the kept words depend on."""
        parameters = self.typed.parameters
        digest = sha256(struct.pack(f"<{1 + len(parameters.primes)}Q", parameters.ring_degree, *parameters.primes))
        for part in (self.value_array, self.code_array, np.array([c.scale for c in self.constants])):
            digest.update(part.tobytes())
        for constant in self.constants:
            digest.update(np.ascontiguousarray(self.typed.circuit.constants[constant.number]).data)
        return digest.digest()

    # Flat arrays, as native/src/program.h describes them

    @property
    def value_array(self) -> Numbers:
        """Offset, rows, polynomials and whether extended of every value; nothing of those that are never there."""
        rows = [
            (self.arena.values[value], of.rows, of.polynomials, int(of.extended))
            if value in self.arena.values
            else (0, of.rows + of.extended, 2, 0)
            for value, of in enumerate(self.residues)
        ]
        return np.array(rows, dtype=np.int64).reshape(-1)

    @property
    def code_array(self) -> Numbers:
        """The instructions."""
        numbers = {constant: number for number, constant in enumerate(self.constants)}
        code: list[int] = []
        for index, (wave, scratch) in enumerate(zip(self.waves, self.arena.scratch, strict=True)):
            for instruction, start in zip(wave, scratch, strict=True):
                code += [code_of(instruction), index, start, *self._operands(instruction, numbers)]
        return np.array(code, dtype=np.int64)

    def _operands(self, instruction: Instruction, numbers: Mapping[Constant, int]) -> list[int]:
        match instruction:
            case Sum(out, factors, addends, plains, kept):
                pairs = [number for value, constant in factors for number in (value, numbers[constant])]
                sizes = [
                    len(factors),
                    len(addends),
                    len(plains),
                    int(is_scalar(instruction, self.typed.circuit)),
                    int(kept),
                ]
                return [out, *sizes, *pairs, *addends, *(numbers[constant] for constant in plains)]
            case Rotations(value, targets, exact):
                triples = [n for t in targets for n in (t.step, t.out, -1 if t.after is None else t.after)]
                return [value, int(exact), len(targets), *triples]
            case Product(out, x, y):
                return [out, x, y]
            case Relinearization(out, value) | Division(out, value) | Extension(out, value):
                return [out, value]


def native_plan(typed: TypedCircuit, *, exact: bool = False, most_constant_bytes: float = inf) -> NativePlan:
    """Plan a circuit; CircuitError when its levels or scales do not fit the parameters.

    Args:
        most_constant_bytes: that constants may take, if they can; some are then made in every run (residents.py).
        exact: compute what SEAL computes, word for word: rotations share nothing.
    """
    residues = tuple(Residues(value.level + 1, value.size) for value in typed.types)
    instructions = within(most_constant_bytes / _WORD_BYTES, fuse(typed, exact=exact), typed, residues)
    return plan_instructions(typed, residues, instructions)


def plan_instructions(
    typed: TypedCircuit, residues: Sequence[Residues], instructions: Sequence[Instruction]
) -> NativePlan:
    """Plan instructions that take a circuit's inputs and make its outputs; `residues` of all their values."""
    waves = in_waves(instructions)
    inputs = [number for number, op in typed.circuit if op.kind is Kind.INPUT]
    arena = place(waves, residues, inputs, typed.circuit.outputs)
    used = (c for i in instructions if isinstance(i, Sum) for c in (*(c for _, c in i.factors), *i.plains))
    return NativePlan(typed, waves, tuple(residues), arena, tuple(dict.fromkeys(used)))
