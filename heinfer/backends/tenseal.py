"""The tenseal backend: runs a circuit on SEAL, through ``tenseal.sealapi``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from tenseal import sealapi

from heinfer.backends.memory import PlaintextKey, plaintext_keys
from heinfer.circuit.annotate import ValueType, annotate
from heinfer.circuit.counts import Counts, count
from heinfer.circuit.ir import Circuit, Kind, Op, SlotVector
from heinfer.ckks.evaluation import EvaluationSide
from heinfer.ckks.seal import Ring, SealObject, library_errors, parms_words
from heinfer.errors import BackendError, MissingKeyError


class TensealProgram:
    """A circuit with its constants encoded, ready to run under any client's evaluation keys.

    Attributes:
        circuit: what runs.
        executed: counts of the last run, taken at the calls into the library, which cannot hoist.
    """

    def __init__(self, circuit: Circuit, ring: Ring, input_level: int, input_scale: float) -> None:
        """Encode all constants; CircuitError when levels or scales of the circuit do not fit the parameters."""
        self.circuit = circuit
        self.executed = Counts()
        self._ring = ring
        self._types = annotate(circuit, ring.parameters, input_level, input_scale)
        self._plaintexts = _Encoder(ring).encode_all(circuit, self._types)

    def run(self, inputs: Sequence[SealObject], keys: EvaluationSide) -> list[SealObject]:
        """Evaluate on input ciphertexts (SEAL objects at the input level and scale); returns the outputs.

        Raises:
            MissingKeyError: when the evaluation keys lack a rotation step or the relinearization key.
            BackendError: when SEAL refuses an operation; names the layer.
        """
        self._require_keys(keys)
        if len(inputs) != self.circuit.inputs:
            raise BackendError(f"the circuit takes {self.circuit.inputs} ciphertexts, got {len(inputs)}")
        done: list[Op] = []
        live: dict[int, SealObject] = {}
        for number, op in self.circuit:
            arguments = [live[a] for a in op.args]
            for dead in {a for a in op.args if self.circuit.last_use[a] == number}:
                del live[dead]
            with library_errors(f"run {op.kind} in {self.circuit.layer_name(op)}"):
                live[number] = self._call(number, op, arguments, inputs, keys)
            done.append(op)
        self.executed = replace(count(done), rotations_hoisted=0)
        return [live[o] for o in self.circuit.outputs]

    def _require_keys(self, keys: EvaluationSide) -> None:
        for step in self.circuit.steps():
            keys.require_step(step)
        if self.circuit.needs_relinearization and keys.relin_keys is None:
            raise MissingKeyError("no relinearization key: register the keys the manifest lists")

    def _call(
        self, number: int, op: Op, args: list[SealObject], inputs: Sequence[SealObject], keys: EvaluationSide
    ) -> SealObject:
        """One call into the library."""
        evaluator = keys.evaluator
        result = sealapi.Ciphertext()
        match op.kind:
            case Kind.INPUT:
                return inputs[op.input]
            case Kind.ROTATE:
                evaluator.rotate_vector(args[0], op.step, keys.galois_keys, result)
            case Kind.MULTIPLY_PLAIN:
                evaluator.multiply_plain(args[0], self._plaintexts[number], result)
            case Kind.ADD_PLAIN:
                evaluator.add_plain(args[0], self._plaintexts[number], result)
            case Kind.ADD:
                evaluator.add(args[0], args[1], result)
            case Kind.MULTIPLY if op.args[0] == op.args[1]:
                evaluator.square(args[0], result)
            case Kind.MULTIPLY:
                evaluator.multiply(args[0], args[1], result)
            case Kind.RELINEARIZE:
                evaluator.relinearize(args[0], keys.relin_keys, result)
            case Kind.RESCALE:
                evaluator.rescale_to_next(args[0], result)
            case Kind.DROP_LEVEL:
                evaluator.mod_switch_to_next(args[0], result)
        return result


class _Encoder:
    """Encodes constants, each once for every level and scale at which it is used."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self._encoder = sealapi.CKKSEncoder(ring.context)
        self._known: dict[PlaintextKey, SealObject] = {}

    def encode_all(self, circuit: Circuit, types: Sequence[ValueType]) -> dict[int, SealObject]:
        """Plaintext of every operation that has one, by the operation's number."""
        plaintexts: dict[int, SealObject] = {}
        for number, key in plaintext_keys(circuit, types).items():
            if key not in self._known:
                constant, level, scale = key
                with library_errors(f"encode a constant of {circuit.layer_name(circuit.ops[number])}"):
                    self._known[key] = self._encode(circuit.constants[constant], level, scale)
            plaintexts[number] = self._known[key]
        return plaintexts

    def _encode(self, vector: SlotVector, level: int, scale: float) -> SealObject:
        parms = parms_words(self._ring.parameters, self._ring.parameters.primes_at(level))
        plaintext = sealapi.Plaintext()
        value = float(vector[0]) if vector.size == 1 else np.ascontiguousarray(vector)
        self._encoder.encode(value, parms, scale, plaintext)
        if plaintext.is_zero():
            # SEAL refuses to multiply by zero. One unit in one coefficient is below the rounding of any weight,
            # and the operation, its time and the counts stay those of the plan.
            self._encoder.encode(1 / scale, parms, scale, plaintext)
        return plaintext
