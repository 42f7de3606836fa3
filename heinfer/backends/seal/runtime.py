"""A circuit on SEAL: frames to SEAL's own bytes, which are written from checked words, and back."""

from __future__ import annotations

from collections.abc import Sequence

from heinfer.backends.control import StepControl
from heinfer.backends.seal.program import TensealProgram
from heinfer.circuit.counts import Counts
from heinfer.circuit.typed import TypedCircuit
from heinfer.ckks.evaluation import EvaluationSide
from heinfer.ckks.seal import Ring, SealObject
from heinfer.formats.residues import CiphertextFrame, KeyFrame
from heinfer.formats.seal_reader import read_ciphertext
from heinfer.formats.seal_writer import write_ciphertext, write_keys


class TensealRuntime:
    """See heinfer.backends.Runtime; its constants are encoded when it is made."""

    backend = "tenseal"

    def __init__(self, typed: TypedCircuit, ring: Ring) -> None:
        """CircuitError when levels or scales of the circuit do not fit the parameters."""
        self._ring = ring
        self._border = EvaluationSide(ring)  # without keys: ciphertexts need none to come in and go out
        self._program = TensealProgram(typed, ring)

    @property
    def executed(self) -> Counts:
        return self._program.executed

    @property
    def steps(self) -> int:
        return len(self._program.circuit.ops)

    def load_keys(self, frames: Sequence[KeyFrame]) -> EvaluationSide:
        side = EvaluationSide(self._ring)
        side.load_keys(*write_keys(frames, self._ring.parameters))
        return side

    def load_inputs(self, frames: Sequence[CiphertextFrame]) -> list[SealObject]:
        return [self._border.load_ciphertext(write_ciphertext(frame, self._ring.parameters)) for frame in frames]

    def new_control(self) -> StepControl:
        return StepControl()

    def run(
        self, inputs: Sequence[SealObject], keys: EvaluationSide, control: StepControl | None = None
    ) -> list[SealObject]:
        return self._program.run(inputs, keys, control)

    def save_outputs(self, outputs: Sequence[SealObject]) -> list[CiphertextFrame]:
        return [read_ciphertext(self._border.save_ciphertext(output), self._ring.parameters) for output in outputs]
