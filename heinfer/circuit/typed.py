"""A circuit that knows its types: all that levels and scales follow from travels with it, and is looked at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from heinfer.brief import brief_repr
from heinfer.circuit.annotate import ValueType, annotate
from heinfer.circuit.counts import Counts, count_circuit
from heinfer.circuit.ir import Circuit
from heinfer.circuit.levels import key_levels
from heinfer.ckks.parameters import Parameters


@dataclass(frozen=True, eq=False)
class TypedCircuit:
    """A circuit with what its inputs are; the rest follows when it is first asked for.

    Attributes:
        circuit: what is computed; its plaintext factors have scales.
        parameters: ring and primes.
        input_level: of the input ciphertexts.
        input_scale: of the same.
    """

    circuit: Circuit
    parameters: Parameters
    input_level: int
    input_scale: float

    __repr__ = brief_repr

    @cached_property
    def types(self) -> tuple[ValueType, ...]:
        """Of every value; CircuitError names the layer where levels, scales or sizes do not fit."""
        return annotate(self.circuit, self.parameters, self.input_level, self.input_scale)

    @cached_property
    def levels(self) -> tuple[int, ...]:
        """Of every value; CircuitError as for the types."""
        return tuple(value.level for value in self.types)

    @property
    def output_types(self) -> tuple[ValueType, ...]:
        """Of what leaves the circuit; CircuitError as for the types."""
        return tuple(self.types[number] for number in self.circuit.outputs)

    @cached_property
    def key_levels(self) -> Mapping[int, int]:
        """The step of every key that is used, 0 for relinearization -> the highest level at which it is."""
        return key_levels(self.circuit, self.input_level)

    @cached_property
    def counts(self) -> Counts:
        """Of all operations."""
        return count_circuit(self.circuit)
