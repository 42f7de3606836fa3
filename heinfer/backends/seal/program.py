"""The tenseal backend: runs a circuit on SEAL, through ``tenseal.sealapi``."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import replace

import numpy as np
from tenseal import sealapi

from heinfer.backends.control import StepControl
from heinfer.backends.memory import PlaintextKey, plaintext_keys
from heinfer.circuit.counts import Counts, count
from heinfer.circuit.ir import Kind, Op, SlotVector
from heinfer.circuit.typed import TypedCircuit
from heinfer.ckks.evaluation import EvaluationSide
from heinfer.ckks.seal import Ring, SealObject, library_errors, parms_words
from heinfer.errors import BackendError, CancelledError, MissingKeyError
from heinfer.formats.residues import CiphertextFrame, KeyFrame
from heinfer.formats.seal_reader import read_ciphertext
from heinfer.formats.seal_writer import write_ciphertext, write_keys

_IN_PLACE = frozenset({Kind.ROTATE, Kind.MULTIPLY_PLAIN, Kind.ADD_PLAIN, Kind.RELINEARIZE, Kind.RESCALE})
"""Kinds of one ciphertext that SEAL can also do in place; the copy that this spares is 3 % of the reference network."""


class TensealProgram:
    """See heinfer.backends.Runtime; its constants are encoded when it is made.

    Attributes:
        circuit: what runs.
        executed: counts of the last run, taken at the calls into the library, which cannot hoist.
    """

    backend = "tenseal"

    def __init__(self, typed: TypedCircuit, ring: Ring) -> None:
        """Encode all constants; CircuitError when levels or scales of the circuit do not fit the parameters."""
        self.circuit = typed.circuit
        self.executed = Counts()
        self._ring = ring
        self._border = EvaluationSide(ring)  # without keys: ciphertexts need none to come in and go out
        self._plaintexts = _Encoder(ring).encode_all(typed)

    @property
    def steps(self) -> int:
        return len(self.circuit.ops)

    def load_keys(self, frames: Sequence[KeyFrame]) -> EvaluationSide:
        side = EvaluationSide(self._ring)
        side.load_keys(*write_keys(frames, self._ring.parameters))
        return side

    def load_inputs(self, frames: Sequence[CiphertextFrame]) -> list[SealObject]:
        return [self._border.load_ciphertext(write_ciphertext(frame, self._ring.parameters)) for frame in frames]

    def new_control(self) -> StepControl:
        return StepControl()

    def save_outputs(self, outputs: Sequence[SealObject]) -> list[CiphertextFrame]:
        return [read_ciphertext(self._border.save_ciphertext(output), self._ring.parameters) for output in outputs]

    def run(
        self, inputs: Sequence[SealObject], keys: EvaluationSide, control: StepControl | None = None
    ) -> list[SealObject]:
        """Evaluate on input ciphertexts (SEAL objects at the input level and scale); returns the outputs.

        Raises:
            MissingKeyError: when the evaluation keys lack a rotation step or the relinearization key.
            BackendError: when SEAL refuses an operation; names the layer.
            CancelledError: when that was asked for.
        """
        self._require_keys(keys)
        if len(inputs) != self.circuit.inputs:
            raise BackendError(f"the circuit takes {self.circuit.inputs} ciphertexts, got {len(inputs)}")
        done: list[Op] = []
        live: dict[int, SealObject] = {}
        for number, op in self.circuit:
            arguments = [live[a] for a in op.args]
            dead = {a for a in op.args if self.circuit.last_use[a] == number}
            for argument in dead:
                del live[argument]
            with library_errors(f"run {op.kind} in {self.circuit.layer_name(op)}"):
                if op.kind is Kind.ADD:
                    live[number] = self._add(op, arguments, dead, keys)
                elif op.kind in _IN_PLACE and self._is_ours(op.args[0], dead):
                    live[number] = self._call_in_place(number, op, arguments[0], keys)
                else:
                    live[number] = self._call(number, op, arguments, inputs, keys)
            done.append(op)
            if control is not None:
                control.done += 1
                if control.is_cancelled:
                    raise CancelledError("the run was cancelled")
        self.executed = replace(count(done), rotations_hoisted=0)
        return [live[o] for o in self.circuit.outputs]

    def _require_keys(self, keys: EvaluationSide) -> None:
        for step in self.circuit.steps():
            keys.require_step(step)
        if self.circuit.needs_relinearization and keys.relin_keys is None:
            raise MissingKeyError("no relinearization key: register the keys the manifest lists")

    def _is_ours(self, argument: int, dead: Set[int]) -> bool:
        """Whether nothing else reads a value: no later operation, and no caller, to whom the inputs belong."""
        return argument in dead and self.circuit.ops[argument].kind is not Kind.INPUT

    def _add(self, op: Op, args: list[SealObject], dead: Set[int], keys: EvaluationSide) -> SealObject:
        """The sum, in place of a summand that nothing else reads."""
        one, other = args
        if op.args[0] != op.args[1]:
            if self._is_ours(op.args[0], dead):
                keys.evaluator.add_inplace(one, other)
                return one
            if self._is_ours(op.args[1], dead):
                keys.evaluator.add_inplace(other, one)
                return other
        result = sealapi.Ciphertext()
        keys.evaluator.add(one, other, result)
        return result

    def _call_in_place(self, number: int, op: Op, argument: SealObject, keys: EvaluationSide) -> SealObject:
        """One call into the library that overwrites its argument, which spares a copy."""
        evaluator = keys.evaluator
        match op.kind:
            case Kind.ROTATE:
                evaluator.rotate_vector_inplace(argument, op.step, keys.galois_keys)
            case Kind.MULTIPLY_PLAIN:
                evaluator.multiply_plain_inplace(argument, self._plaintexts[number])
            case Kind.ADD_PLAIN:
                evaluator.add_plain_inplace(argument, self._plaintexts[number])
            case Kind.RELINEARIZE:
                evaluator.relinearize_inplace(argument, keys.relin_keys)
            case Kind.RESCALE:
                evaluator.rescale_to_next_inplace(argument)
        return argument

    def _call(
        self, number: int, op: Op, args: list[SealObject], inputs: Sequence[SealObject], keys: EvaluationSide
    ) -> SealObject:
        """One call into the library, for all but sums."""
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

    def encode_all(self, typed: TypedCircuit) -> dict[int, SealObject]:
        """Plaintext of every operation that has one, by the operation's number."""
        circuit = typed.circuit
        plaintexts: dict[int, SealObject] = {}
        for number, key in plaintext_keys(typed).items():
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
