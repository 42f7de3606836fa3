"""What is kept of each sum's constants under a limit on memory: most time saved in every run for a byte comes first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from heinfer.backends.native.instructions import Constant, Instruction, Kept, Residues, Sum
from heinfer.circuit.ir import Circuit
from heinfer.circuit.typed import TypedCircuit

_TILE_WORDS = 16
"""Every sum's constants begin a cache line (native/src/constants.cpp)."""
_LARGEST_COEFFICIENT = 2.0**31 - 2
"""That fits 32 bits with its sign, with room for the rounding of the Fourier transform."""


def is_scalar(instruction: Sum, circuit: Circuit) -> bool:
    """Whether all constants of a sum are one value for all slots: then they take a word a row."""
    return all(circuit.constants[constant.number].size == 1 for constant in _constants_of(instruction))


def kept_words(instruction: Sum, typed: TypedCircuit, residues: Sequence[Residues]) -> int:
    """Words that are kept of a sum's constants; slots and coefficients take equally many."""
    words = 1 if is_scalar(instruction, typed.circuit) else typed.parameters.ring_degree
    words *= instruction.constants * (residues[instruction.out].rows if instruction.kept is Kept.RESIDUES else 1)
    return -(-words // _TILE_WORDS) * _TILE_WORDS


def forgotten(typed: TypedCircuit) -> TypedCircuit:
    """The same circuit without its vectors' values, of which a program that is loaded reads only the sizes."""
    constants = tuple(c if c.size == 1 else np.broadcast_to(np.nan, c.shape) for c in typed.circuit.constants)
    return replace(typed, circuit=replace(typed.circuit, constants=constants))


def within(
    most_words: float, instructions: Sequence[Instruction], typed: TypedCircuit, residues: Sequence[Residues]
) -> list[Instruction]:
    """The same instructions, with what is to be kept of constants so that they take no more, if that is possible.

    The least that is kept of a constant is N words: its coefficients, from which a run makes residues by a transform
    for each row; slots where a coefficient may not fit 32 bits, which takes a Fourier transform besides. Residues take
    N words more for every row but one. So what saves most for a word are, first, residues instead of slots, then those
    instead of coefficients, and of each the ones with few rows: those of one row are free. Scalars are residues always.
    """
    result = list(instructions)
    vectors: dict[int, Sum] = {}
    for position, instruction in enumerate(instructions):
        if isinstance(instruction, Sum):
            most_words -= kept_words(instruction, typed, residues)
            if not is_scalar(instruction, typed.circuit):
                vectors[position] = instruction
    if most_words >= 0:
        return result
    for position, instruction in vectors.items():
        least = Kept.COEFFICIENTS if fits(instruction, typed.circuit) else Kept.SLOTS
        result[position] = less = replace(instruction, kept=least)
        vectors[position] = less
        most_words += kept_words(instruction, typed, residues) - kept_words(less, typed, residues)
    for position, less in sorted(vectors.items(), key=lambda v: (v[1].kept, residues[v[1].out].rows)):
        more = replace(less, kept=Kept.RESIDUES)
        words = kept_words(more, typed, residues) - kept_words(less, typed, residues)
        if words <= max(most_words, 0):
            most_words -= words
            result[position] = more
    return result


def _constants_of(instruction: Sum) -> list[Constant]:
    return [*(constant for _, constant in instruction.factors), *instruction.plains]


def fits(instruction: Sum, circuit: Circuit) -> bool:
    """Whether all coefficients surely fit 32 bits: none is larger than the mean of the slots' sizes times the scale."""
    vectors = ((circuit.constants[constant.number], constant.scale) for constant in _constants_of(instruction))
    return all(v.size == 1 or float(np.abs(v).mean()) * scale <= _LARGEST_COEFFICIENT for v, scale in vectors)
