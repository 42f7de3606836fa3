"""A circuit on the native backend, ready to run under any client's keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from math import inf
from pathlib import Path

import numpy as np

from heinfer.backends.native.constants_file import ConstantsFile
from heinfer.backends.native.instructions import Rotations
from heinfer.backends.native.keys import NativeKeys
from heinfer.backends.native.library import library
from heinfer.backends.native.plan import NativePlan, native_plan
from heinfer.backends.native.ring import NativeRing, Words
from heinfer.circuit.counts import Counts
from heinfer.circuit.typed import TypedCircuit
from heinfer.errors import BackendError, CancelledError


class Progress:
    """What another thread may know and do of a run."""

    def __init__(self) -> None:
        self.handle = library().Control()

    @property
    def instructions_done(self) -> int:
        """Instructions that are finished, of NativeProgram.instructions."""
        return int(self.handle.done)

    def cancel(self) -> None:
        """Have the run end soon, with CancelledError."""
        self.handle.cancel()


class NativeProgram:
    """A circuit with its constants encoded.

    Attributes:
        typed: what runs.
        ring: where.
        plan: how.
        executed: counts of the last run.
    """

    def __init__(
        self,
        typed: TypedCircuit,
        ring: NativeRing,
        *,
        threads: int = 1,
        exact: bool = False,
        most_constant_bytes: float = inf,
        folder: Path | None = None,
        saves: bool = True,
    ) -> None:
        """Encode the constants; CircuitError when levels or scales of the circuit do not fit the parameters.

        Args:
            threads: that a run is spread over.
            exact: compute what SEAL computes, word for word: rotations share nothing.
            most_constant_bytes: that encoded constants may take; the others are encoded in every run.
            folder: where encoded constants are kept and mapped from.
            saves: whether those that are not there are written there; SettingError when they cannot be.
        """
        self.typed = typed
        self.ring = ring
        self.executed = Counts()
        self.plan: NativePlan = native_plan(typed, exact=exact, most_constant_bytes=most_constant_bytes)
        self._threads = threads
        plan = self.plan
        self._handle = library().Program(
            ring.handle, plan.value_array, plan.code_array, plan.inputs, typed.circuit.outputs, plan.arena.rows
        )
        self._load(folder, saves)

    def _load(self, folder: Path | None, saves: bool) -> None:
        plan, known = self.plan, self.typed.circuit.constants
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
    def instructions(self) -> int:
        """Instructions that a run has."""
        return int(self._handle.operations)

    @property
    def run_bytes(self) -> int:
        """Memory that a run takes; it is kept for the next one."""
        return int(self._handle.run_bytes(self._threads))

    @property
    def constant_bytes(self) -> int:
        """Memory of the encoded constants."""
        return int(self._handle.constant_bytes)

    def run(
        self, inputs: Sequence[tuple[Words, Words]], keys: NativeKeys, progress: Progress | None = None
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
        control = (progress or Progress()).handle
        try:
            outputs = self._handle.run(rows, keys.handle, self._threads, control)
        except ValueError as error:
            raise BackendError("the native library failed to run the circuit") from error
        if outputs is None:
            raise CancelledError("the run was cancelled")
        self.executed = self._counts
        return list(outputs)

    @cached_property
    def _counts(self) -> Counts:
        """Of a complete run: an instruction does what its part of the circuit says, always."""
        groups = [i for i in self.plan.instructions if isinstance(i, Rotations)]
        shared = sum(len(group.targets) for group in groups if len(group.targets) > 1)
        return replace(self.typed.counts, rotations_hoisted=shared)
