"""What a server holds for one request besides its code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from heinfer.circuit.ir import Circuit
from heinfer.ckks.parameters import Parameters


def server_memory(
    circuit: Circuit, parameters: Parameters, at: Sequence[int], input_level: int, key_levels: Mapping[int, int]
) -> int:
    """Bytes of live ciphertexts, encoded plaintexts and evaluation keys, in 64-bit words.

    Args:
        at: the level of every operation.
        key_levels: step of every key -> the highest level at which it is used.
    """
    word = 8 * parameters.ring_degree
    plaintexts = sum(at[n] + 1 for n, op in circuit if op.constant >= 0)
    keys = 2 * len(parameters.primes) * len(parameters.data_primes) * len(key_levels)
    return word * (plaintexts + keys + 2 * (input_level + 1) * peak_ciphertexts(circuit))


def peak_ciphertexts(circuit: Circuit) -> int:
    """Most values alive at once."""
    ends = sorted(circuit.last_use.values())
    alive = peak = position = 0
    for number in range(len(circuit.ops)):
        alive += 1
        peak = max(peak, alive)
        while position < len(ends) and ends[position] <= number:
            alive -= 1
            position += 1
    return peak
