"""Which constants are kept encoded, where memory does not suffice for all: those that are dearest to encode again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from heinfer.backends.native.instructions import Instruction, Residues, Sum
from heinfer.circuit.ir import Circuit
from heinfer.circuit.typed import TypedCircuit


def is_scalar(instruction: Sum, circuit: Circuit) -> bool:
    """Whether all constants of a sum are one value for all slots: then they take a word a row."""
    used = [*(constant for _, constant in instruction.factors), *instruction.plains]
    return all(circuit.constants[constant.number].size == 1 for constant in used)


def constant_words(instruction: Sum, typed: TypedCircuit, residues: Sequence[Residues]) -> int:
    """Words of a sum's encoded constants."""
    words = 1 if is_scalar(instruction, typed.circuit) else typed.parameters.ring_degree
    return words * residues[instruction.out].rows * instruction.constants


def within(
    most_words: float, instructions: Sequence[Instruction], typed: TypedCircuit, residues: Sequence[Residues]
) -> list[Instruction]:
    """The same instructions, the constants of some sums being encoded in every run, so that the others take no more.

    To encode a constant takes one Fourier transform and one transform for each row, so a word of one with few rows is
    the dearest: those of low levels are kept first. Scalars take next to nothing and are always kept.
    """
    result = list(instructions)
    vectors = [
        (position, instruction)
        for position, instruction in enumerate(instructions)
        if isinstance(instruction, Sum) and not is_scalar(instruction, typed.circuit)
    ]
    for position, instruction in sorted(vectors, key=lambda found: residues[found[1].out].rows):
        words = constant_words(instruction, typed, residues)
        if words <= most_words:
            most_words -= words
        else:
            result[position] = replace(instruction, resident=False)
    return result
