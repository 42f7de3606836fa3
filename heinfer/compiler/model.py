"""A compiled model: what it computes, what it costs, how noisy it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from heinfer.backends.cleartext import Simulation, simulate
from heinfer.brief import brief_repr
from heinfer.circuit.drawn import RUNS_A_KEY
from heinfer.circuit.interpret import run
from heinfer.compiler.at_scale import TestSet, WorstInput, score_deviations, simulated, worst_input
from heinfer.compiler.calibration import Given, as_inputs, concatenated
from heinfer.compiler.report import Report, report
from heinfer.errors import ShapeError
from heinfer.formats.bundle import Bundle
from heinfer.formats.manifest import (
    Manifest,
)
from heinfer.network.ir import Network
from heinfer.planner.plan import Plan

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CompiledModel:
    """A network that is ready to run encrypted.

    Attributes:
        network: the folded network: the cleartext truth.
        plan: layouts, kernels and levels.
        bundle: what a server gets; its manifest is what clients get.
        predicted_peak: the most bytes that compiling and saving would take, as predicted before the plan was lowered.
    """

    network: Network
    plan: Plan
    bundle: Bundle
    predicted_peak: int

    __repr__ = brief_repr

    def _about(self) -> str:
        model = f"{self.manifest.name} {self.manifest.model_version}"
        return f"{model}: {len(self.plan.steps)} layers on N={self.plan.parameters.ring_degree}"

    @property
    def manifest(self) -> Manifest:
        return self.bundle.manifest

    @cached_property
    def report(self) -> Report:
        """Costs, before anything is paid."""
        return report(self.bundle)

    def simulate(self, x: Given) -> Simulation:
        """Cleartext run with the noise model, on preprocessed inputs of shape (n, *input_shape), n whole batches.

        Of several inputs: on a mapping of all their names to such.
        """
        return simulate(self.bundle.typed, self.bundle.bounds, self._packed(self._whole(x)))

    def simulate_many(self, x: Given, seed: int = 0) -> TestSet:
        """Scores of whole test sets (n, *input_shape), preprocessed, with noise: 10,000 images in seconds to minutes.

        How noisy scores are is drawn for the first of the inputs.
        """
        whole = self._whole(x)
        deviations = score_deviations(self.bundle.typed, self.plan, self.manifest, whole)
        return simulated(self.network, deviations, whole, seed)

    def worst_input(self, x: Given) -> WorstInput:
        """Seek an input within the declared range with a score as near to wrapping as can be, from these on."""
        typed, manifest, whole = self.bundle.typed, self.manifest, self._whole(x)
        capacities = manifest.to_scores(np.full(manifest.output_shape, manifest.decoded_capacity)).reshape(-1)
        worst = worst_input(self.network, whole, *self._ends(whole.shape[1:]), capacities)
        reached = np.abs(self(worst[None])).reshape(-1)
        at = int((reached / capacities).argmax())
        again = np.broadcast_to(worst, (RUNS_A_KEY, *worst.shape))
        return WorstInput(
            worst,
            score=float(reached[at]),
            typical_score=float(np.abs(self(whole)).reshape(len(whole), -1)[:, at].max()),
            capacity=float(capacities[at]),
            deviation=float(score_deviations(typed, self.plan, manifest, again)[at]),
            typical_deviation=float(score_deviations(typed, self.plan, manifest, whole)[at]),
        )

    def _ends(self, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """Between which each element of the inputs may be."""
        found = []
        for end in ("low", "high"):
            parts = [
                np.broadcast_to(getattr(part.preprocessing.over(own.shape), end), own.shape).reshape(-1)
                for part, own in zip(self.manifest.inputs, self.manifest.input_parts, strict=True)
            ]
            found.append(np.concatenate(parts).reshape(shape))
        return found[0], found[1]

    def __call__(self, x: Given) -> Array:
        """Scores that the circuit computes in cleartext, shape (n, *output_shape); the last batch need not be whole.

        Of several inputs, of a mapping of their names; of several outputs (n, elements): `outputs` tells them apart.
        """
        whole = self._whole(x)
        decoded = self.plan.output.unpack(run(self.bundle.circuit, self._packed(whole)))
        return self.manifest.to_scores(decoded.reshape(-1, *self.manifest.output_shape))[: len(whole)]

    def outputs(self, x: Given) -> dict[str, Array]:
        """What a call computes, by the name of each output, of shape (n, *shape)."""
        scores = self(x)
        return {part.name: part.of(scores.reshape(len(scores), -1)) for part in self.manifest.output_parts}

    def _whole(self, x: Given) -> Array:
        """Inputs as the network takes them; CompileError, or ShapeError, where they are not the model's."""
        if not isinstance(x, Mapping):
            return x
        given, parts = as_inputs(x), self.manifest.input_parts
        shapes = {part.name: part.shape for part in parts}
        if {part.name: part.shape for part in given.parts} != shapes:
            raise ShapeError(f"the inputs must be of the names and shapes {shapes}")
        return concatenated([given.of(own) for name in shapes for own in given.parts if own.name == name])

    def _packed(self, x: Array) -> Array:
        return self.plan.input.pack(self.plan.in_batches(x))
