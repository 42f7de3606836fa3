"""A circuit on the native backend: words of frames go in and come out as they are; no byte of them reaches SEAL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from heinfer.backends.native.constants_file import ConstantsFile
from heinfer.backends.native.instructions import Rotations
from heinfer.backends.native.keys import NativeKeys
from heinfer.backends.native.library import library
from heinfer.backends.native.options import DEFAULTS, NativeOptions
from heinfer.backends.native.plan import NativePlan, native_plan
from heinfer.backends.native.residents import forgotten
from heinfer.backends.native.ring import NativeRing, Words
from heinfer.circuit.counts import Counts
from heinfer.circuit.typed import TypedCircuit
from heinfer.errors import BackendError, CancelledError
from heinfer.formats.residues import CiphertextFrame, KeyFrame

if TYPE_CHECKING:
    from heinfer_native import Control


class NativeProgram:
    """See heinfer.backends.Runtime; its constants are encoded when it is made.

    Attributes:
        typed: what runs, without the values of its constants: whoever needs them no more has their memory back.
        ring: where.
        plan: how.
        executed: counts of the last run.
    """

    backend = "native"

    def __init__(
        self, typed: TypedCircuit, ring: NativeRing, options: NativeOptions = DEFAULTS, *, exact: bool = False
    ) -> None:
        """Encode the constants.

        Args:
            exact: compute what SEAL computes, word for word: rotations share nothing.

        Raises:
            CircuitError: when levels or scales of the circuit do not fit the parameters.
            SettingError: when encoded constants cannot be written where the options say.
        """
        self.executed = Counts()
        self.plan: NativePlan = native_plan(typed, exact=exact, most_constant_bytes=options.most_constant_bytes)
        self.ring = ring
        self._threads = options.threads
        plan = self.plan
        self._handle = library().Program(
            ring.handle, plan.value_array, plan.code_array, plan.inputs, typed.circuit.outputs, plan.arena.rows
        )
        self._load(options.constants_folder, options.saves_constants)
        self.typed = forgotten(typed)
        self.plan = replace(plan, typed=self.typed)

    def _load(self, folder: Path | None, saves: bool) -> None:
        plan, known = self.plan, self.plan.typed.circuit.constants
        vectors = [np.ascontiguousarray(known[constant.number], dtype=np.float64) for constant in plan.constants]
        scales = [constant.scale for constant in plan.constants]
        file = ConstantsFile(folder, plan.identity()) if folder else None
        mapped = file.open(plan.constant_words) if file else None
        if mapped is not None:
            self._handle.load_encoded(vectors, scales, mapped)
            return
        self._handle.load(vectors, scales, self._threads)
        if file and saves:
            file.save(self._handle.encoded)

    @property
    def steps(self) -> int:
        """Instructions that a run has."""
        return int(self._handle.operations)

    @property
    def run_bytes(self) -> int:
        """Memory that a run takes; it is kept for the next one."""
        return int(self._handle.run_bytes(self._threads))

    @property
    def constant_bytes(self) -> int:
        """Memory of all that is kept of the constants."""
        return int(self._handle.constant_bytes)

    def load_keys(self, frames: Sequence[KeyFrame]) -> NativeKeys:
        keys = NativeKeys(self.ring, self.typed.key_levels, self._threads)
        for frame in frames:
            keys.add(frame.step, frame.digits, [seed.data for seed in frame.seeds])
        return keys

    def load_inputs(self, frames: Sequence[CiphertextFrame]) -> list[tuple[Words, Words]]:
        return [(frame.c0, self._second(frame)) for frame in frames]

    def new_control(self) -> Control:
        return library().Control()

    def run(
        self, inputs: Sequence[tuple[Words, Words]], keys: NativeKeys, control: Control | None = None
    ) -> list[Words]:
        """Evaluate on input ciphertexts, (c0, c1) of (level + 1, N) words each, below their primes.

        Returns:
            (polynomials, level + 1, N) words of every output.

        Raises:
            MissingKeyError: when the keys lack one.
            BackendError: when there are too few or too many inputs.
            CancelledError: when that was asked for.
        """
        keys.require_all()
        if len(inputs) != self.typed.circuit.inputs:
            raise BackendError(f"the circuit takes {self.typed.circuit.inputs} ciphertexts, got {len(inputs)}")
        rows = [np.ascontiguousarray(half, dtype=np.uint32) for pair in inputs for half in pair]
        try:
            outputs = self._handle.run(rows, keys.handle, self._threads, control or self.new_control())
        except ValueError as error:
            raise BackendError("the native library failed to run the circuit") from error
        if outputs is None:
            raise CancelledError("the run was cancelled")
        self.executed = self._counts
        return list(outputs)

    def save_outputs(self, outputs: Sequence[Words]) -> list[CiphertextFrame]:
        return [
            CiphertextFrame(kind.level, kind.scale, output[0], output[1])
            for kind, output in zip(self.typed.output_types, outputs, strict=True)
        ]

    def _second(self, frame: CiphertextFrame) -> Words:
        """The second polynomial, from its seed where there is one."""
        if frame.seed is None:
            assert frame.c1 is not None
            return frame.c1
        return self.ring.expand(frame.seed.data, self.ring.parameters.primes_at(frame.level))

    @cached_property
    def _counts(self) -> Counts:
        """Of a complete run: an instruction does what its part of the circuit says, always."""
        groups = [i for i in self.plan.instructions if isinstance(i, Rotations)]
        shared = sum(len(group.targets) for group in groups if len(group.targets) > 1)
        return replace(self.typed.counts, rotations_hoisted=shared)
