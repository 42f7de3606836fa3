"""The memory that a circuit takes on SEAL, known before any of it is taken: SEAL's words have 64 bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from heinfer.circuit.ir import Circuit, Kind
from heinfer.circuit.typed import TypedCircuit
from heinfer.ckks.parameters import Parameters

PlaintextKey: TypeAlias = tuple[int, int, float]
"""Constant, level and scale: a plaintext serves all operations that agree in them."""

_WORD_BYTES = 8


@dataclass(frozen=True)
class Memory:
    """Bytes that a circuit takes.

    Attributes:
        plaintexts: what is kept of its constants, as long as it is loaded.
        ciphertexts: the most that are held at once while it runs, inputs included.
    """

    plaintexts: int
    ciphertexts: int


def plaintext_keys(typed: TypedCircuit) -> Mapping[int, PlaintextKey]:
    """What to encode for every operation that has a constant, by the operation's number."""
    keys: dict[int, PlaintextKey] = {}
    for number, op in typed.circuit:
        if op.constant >= 0:
            argument = typed.types[op.args[0]]
            scale = op.scale if op.kind is Kind.MULTIPLY_PLAIN else argument.scale
            keys[number] = op.constant, argument.level, scale
    return keys


def memory_of(typed: TypedCircuit) -> Memory:
    """The memory of a circuit; CircuitError when its levels or scales do not fit the parameters."""
    row = _WORD_BYTES * typed.parameters.ring_degree
    keys = set(plaintext_keys(typed).values())
    plaintexts = sum(row * (level + 1) for _, level, _ in keys)
    sizes = [row * (value.level + 1) * value.size for value in typed.types]
    return Memory(plaintexts, _most_at_once(typed.circuit, sizes))


def key_bytes(parameters: Parameters, levels: Mapping[int, int], backend: str) -> int:
    """Memory of one client's evaluation keys, loaded: by step, the level up to which each is of use.

    SEAL holds every key over all primes, in words of 64 bits; the native backend only what the levels read, in 32.
    """
    if backend == "native":
        return sum(2 * 4 * parameters.ring_degree * (level + 1) * (level + 2) for level in levels.values())
    return parameters.seal_key_bytes * len(levels)


def _most_at_once(circuit: Circuit, sizes: Sequence[int]) -> int:
    """The largest sum of sizes of values that are alive; inputs are alive from the start to the end."""
    now = most = sum(size for (_, op), size in zip(circuit, sizes, strict=True) if op.kind is Kind.INPUT)
    for number, op in circuit:
        if op.kind is not Kind.INPUT:
            now += sizes[number]
            most = max(most, now)
        for argument in set(op.args):
            if circuit.last_use[argument] == number and circuit.ops[argument].kind is not Kind.INPUT:
                now -= sizes[argument]
    return most
