"""What one request costs: counted from the circuit that runs, its time predicted. Whoever shows a cost shows this."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from heinfer.brief import brief_repr
from heinfer.circuit.counts import Counts, count_circuit
from heinfer.circuit.ir import Circuit
from heinfer.circuit.levels import key_levels, levels
from heinfer.ckks.parameters import Parameters
from heinfer.costs.memory import server_memory
from heinfer.costs.prediction import predict
from heinfer.costs.tables import CostTable
from heinfer.formats.frames import ciphertexts_length, keys_length


@dataclass(frozen=True, eq=False, kw_only=True)
class Cost:
    """What one request takes.

    Attributes:
        parameters: ring and primes.
        input_level, output_level: of the ciphertexts that the client sends, and gets back.
        counts: operations.
        key_levels: step of every key, 0 for relinearization -> the highest level at which it is used.
        input_ciphertexts, output_ciphertexts: how many the client sends, and gets back.
        predicted: backend -> milliseconds by its cost table, one thread, constants already encoded.
        memory_bytes: what a server holds for one request besides its code; None of a published method that is counted
            step by step.
        sampled: of a published method, for every step that was too large to plan whole, how many of how many
            ciphertexts were planned; its counts and time are those times the ratio.
    """

    parameters: Parameters
    input_level: int
    output_level: int
    counts: Counts
    key_levels: Mapping[int, int]
    input_ciphertexts: int
    output_ciphertexts: int
    predicted: Mapping[str, float]
    memory_bytes: int | None = None
    sampled: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    __repr__ = brief_repr

    @property
    def key_count(self) -> int:
        """Evaluation keys, that of relinearization included."""
        return len(self.key_levels)

    @property
    def key_bytes(self) -> int:
        """Bytes of all evaluation keys, as a client sends them."""
        return keys_length(self.parameters, self.key_levels)

    @property
    def upload_bytes(self) -> int:
        """Bytes of one request."""
        return ciphertexts_length(self.parameters, count=self.input_ciphertexts, level=self.input_level, seeded=True)

    @property
    def download_bytes(self) -> int:
        """Bytes of its answer."""
        return ciphertexts_length(self.parameters, count=self.output_ciphertexts, level=self.output_level, seeded=False)


def circuit_cost(circuit: Circuit, parameters: Parameters, input_level: int, tables: Mapping[str, CostTable]) -> Cost:
    """The cost of a circuit, by each backend's cost table."""
    at, keys = levels(circuit, input_level), key_levels(circuit, input_level)
    return Cost(
        parameters=parameters,
        input_level=input_level,
        output_level=at[circuit.outputs[0]],
        counts=count_circuit(circuit),
        key_levels=keys,
        input_ciphertexts=circuit.inputs,
        output_ciphertexts=len(circuit.outputs),
        predicted={backend: sum(predict(circuit, at, table)) for backend, table in tables.items()},
        memory_bytes=server_memory(circuit, parameters, at, input_level, keys),
    )
