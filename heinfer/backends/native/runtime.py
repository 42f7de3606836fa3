"""A circuit on the native backend: words of frames go in and come out as they are; no byte of them reaches SEAL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path

from heinfer.backends.native.keys import NativeKeys
from heinfer.backends.native.program import NativeProgram, Progress
from heinfer.backends.native.ring import NativeRing, Words
from heinfer.circuit.counts import Counts
from heinfer.circuit.typed import TypedCircuit
from heinfer.formats.residues import CiphertextFrame, KeyFrame


@dataclass(frozen=True)
class NativeOptions:
    """How the native backend runs.

    Attributes:
        threads: that one evaluation is spread over.
        most_constant_bytes: that a model's encoded constants may take; the others are encoded in every evaluation.
        constants_folder: where encoded constants are kept, and mapped from by all processes; None for nowhere.
        saves_constants: whether those that are not there are written there.
    """

    threads: int = 1
    most_constant_bytes: float = inf
    constants_folder: Path | None = None
    saves_constants: bool = True


DEFAULTS = NativeOptions()


class NativeControl:
    """See heinfer.backends.control.RunControl."""

    def __init__(self, instructions: int) -> None:
        self.progress = Progress()
        self._instructions = instructions

    @property
    def fraction(self) -> float:
        return self.progress.instructions_done / self._instructions

    def cancel(self) -> None:
        self.progress.cancel()


class NativeRuntime:
    """See heinfer.backends.Runtime; its constants are encoded when it is made.

    Args:
        options: threads, memory for constants, and where they are kept.
    """

    backend = "native"

    def __init__(self, typed: TypedCircuit, ring: NativeRing, options: NativeOptions = DEFAULTS) -> None:
        """CircuitError when levels or scales of the circuit do not fit the parameters."""
        self._ring = ring
        self._threads = options.threads
        self._program = NativeProgram(
            typed,
            ring,
            threads=options.threads,
            most_constant_bytes=options.most_constant_bytes,
            folder=options.constants_folder,
            saves=options.saves_constants,
        )

    @property
    def executed(self) -> Counts:
        return self._program.executed

    @property
    def constant_bytes(self) -> int:
        """Memory of the constants that are kept encoded."""
        return self._program.constant_bytes

    @property
    def run_bytes(self) -> int:
        """Memory that a run takes."""
        return self._program.run_bytes

    def load_keys(self, frames: Sequence[KeyFrame]) -> NativeKeys:
        keys = NativeKeys(self._ring, self._program.typed.key_levels, self._threads)
        for frame in frames:
            keys.add(frame.step, frame.digits, [seed.data for seed in frame.seeds])
        return keys

    def load_inputs(self, frames: Sequence[CiphertextFrame]) -> list[tuple[Words, Words]]:
        return [(frame.c0, self._second(frame)) for frame in frames]

    def new_control(self) -> NativeControl:
        return NativeControl(self._program.instructions)

    def run(
        self, inputs: Sequence[tuple[Words, Words]], keys: NativeKeys, control: NativeControl | None = None
    ) -> list[Words]:
        return self._program.run(inputs, keys, control.progress if control else None)

    def save_outputs(self, outputs: Sequence[Words]) -> list[CiphertextFrame]:
        return [
            CiphertextFrame(kind.level, kind.scale, output[0], output[1])
            for kind, output in zip(self._program.typed.output_types, outputs, strict=True)
        ]

    def _second(self, frame: CiphertextFrame) -> Words:
        """The second polynomial, from its seed where there is one."""
        if frame.seed is None:
            assert frame.c1 is not None
            return frame.c1
        return self._ring.expand(frame.seed.data, self._ring.parameters.primes_at(frame.level))
