"""What every backend that computes on ciphertexts can do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

from heinfer.backends.control import RunControl
from heinfer.circuit.counts import Counts
from heinfer.formats.residues import CiphertextFrame, KeyFrame

Handle: TypeAlias = Any
"""Keys, inputs or outputs as a backend holds them; only the backend that made one knows what it is."""

RingHandle: TypeAlias = Any
"""A ring as a backend holds it."""


class Runtime(Protocol):
    """A circuit with its constants encoded, ready to run under any client's evaluation keys.

    Frames have been checked against the manifest before they come here (heinfer.formats.frames).
    """

    @property
    def backend(self) -> str:
        """Name of the backend."""

    @property
    def executed(self) -> Counts:
        """Counts of the last run."""

    @property
    def steps(self) -> int:
        """Of a run, as its control counts them."""

    def load_keys(self, frames: Sequence[KeyFrame]) -> Handle:
        """One client's evaluation keys, expanded; BackendError when the library refuses them.

        They serve every runtime of the same ring whose circuit uses the same keys at the same levels.
        """

    def load_inputs(self, frames: Sequence[CiphertextFrame]) -> Handle:
        """Input ciphertexts, by number, expanded; BackendError when the library refuses them."""

    def new_control(self) -> RunControl:
        """For one run."""

    def run(self, inputs: Handle, keys: Handle, control: Any = None) -> Handle:
        """Evaluate.

        Args:
            control: that `new_control` made for this run.

        Raises:
            CancelledError: when that was asked for.
            MissingKeyError: when the keys lack one.
            BackendError: when there are too few or too many inputs, or the library fails.
        """

    def save_outputs(self, outputs: Handle) -> list[CiphertextFrame]:
        """The output ciphertexts."""
