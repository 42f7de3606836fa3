"""compile(): from a trained torch module to everything that running it encrypted takes.

Trace, fold, balance, plan, lower, calibrate, assign scales, validate: each step is one function, named here in
the order in which it happens.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from math import ldexp, prod
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from heinfer.backends.cleartext import Simulation, simulate
from heinfer.brief import brief_repr
from heinfer.circuit.drawn import RUNS_A_KEY
from heinfer.circuit.interpret import run
from heinfer.circuit.validate import validate, validate_structure
from heinfer.compiler.arguments import Description, as_inputs
from heinfer.compiler.at_scale import TestSet, WorstInput, score_deviations, simulated, worst_input
from heinfer.compiler.memory import predicted_peak
from heinfer.compiler.precision import require
from heinfer.compiler.progress import shown
from heinfer.compiler.report import Report, report
from heinfer.compiler.scaling import Scaled, scale
from heinfer.errors import CompileError, PlanError, ShapeError
from heinfer.extras import needs
from heinfer.formats.bundle import Bundle
from heinfer.formats.manifest import (
    InputPart,
    KeysPart,
    LayoutPart,
    Manifest,
    OutputPart,
    ParametersPart,
    Preprocessing,
    first_reason,
)
from heinfer.lowering.circuits import plan_circuit
from heinfer.network.balancing import balance
from heinfer.network.folding import fold
from heinfer.network.ir import Network
from heinfer.planner.parameters import SPECIAL_BITS
from heinfer.planner.plan import Plan
from heinfer.planner.planner import SEARCH, Planner
from heinfer.planner.requirements import DEFAULT, Requirements
from heinfer.tell import Tell

if TYPE_CHECKING:
    from torch import nn

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

    def simulate(self, x: Array) -> Simulation:
        """Cleartext run with the noise model, on preprocessed inputs of shape (n, *input_shape), n whole batches."""
        return simulate(self.bundle.typed, self.bundle.bounds, self.plan.input.pack(self.plan.in_batches(x)))

    def simulate_many(self, x: Array, seed: int = 0) -> TestSet:
        """Scores of whole test sets (n, *input_shape), preprocessed, with noise: 10,000 images in seconds to minutes.

        How noisy scores are is drawn for the first of the inputs.
        """
        deviations = score_deviations(self.bundle.typed, self.plan, self.manifest.output.exponent, x)
        return simulated(self.network, deviations, x, seed)

    def worst_input(self, x: Array) -> WorstInput:
        """Seek an input within the declared range with scores as large as can be, from these on (n, *input_shape)."""
        typed, exponent = self.bundle.typed, self.manifest.output.exponent
        preprocessing = self.manifest.input.preprocessing
        worst = worst_input(self.network, x, preprocessing.low, preprocessing.high)
        again = np.broadcast_to(worst, (RUNS_A_KEY, *worst.shape))
        return WorstInput(
            worst,
            score=float(np.abs(self(worst[None])).max()),
            typical_score=float(np.abs(self(x)).max()),
            capacity=self.manifest.capacity,
            deviation=float(score_deviations(typed, self.plan, exponent, again).max()),
            typical_deviation=float(score_deviations(typed, self.plan, exponent, x).max()),
        )

    def __call__(self, x: Array) -> Array:
        """Scores that the circuit computes in cleartext, shape (n, *output_shape); the last batch need not be whole."""
        scores = self.plan.output.unpack(run(self.bundle.circuit, self.plan.input.pack(self.plan.in_batches(x))))
        scores = np.ldexp(scores, self.manifest.output.exponent)
        return scores.reshape(-1, *self.network.output_shape)[: len(x)]


def compile(  # noqa: A001, PLR0913 - the word users expect; one keyword for each thing that can be said
    module: nn.Module,
    calibration: Array,
    *,
    name: str,
    preprocessing: Preprocessing,
    labels: tuple[str, ...] = (),
    model_version: str = "1",
    metadata: Mapping[str, str] | None = None,
    requirements: Requirements = DEFAULT,
    planner: Planner = SEARCH,
) -> CompiledModel:
    """Compile a torch module.

    Args:
        module: supported layers, trained; it is run in evaluation mode on some of the calibration inputs, and refused
            where the compiled network would compute something else. It stays as it is.
        calibration: (batch, *input_shape) representative inputs, preprocessed: ranges and scales come from them.
        name: under which a server offers the model.
        preprocessing: how a client turns pixels into inputs; values are clipped to its range.
        labels: a name for each score. They declare a classification: what all scores share may be taken out of them,
            when it eats their range.
        model_version, metadata: free text that travels in the manifest and the bundle.
        requirements: what the plan shall be good at, and must not exceed.
        planner: who makes it; by default the search.

    Raises:
        CompileError: names the argument or the layer, the cause and the way out; arguments before anything is planned.
        SettingError: when PyTorch is not installed.
        NoiseError: when noise leaves fewer bits of the scores than are required, or drowns what they tell. A
            NoiseWarning when it comes near that.
    """
    with needs("train"):  # torch is needed for this alone
        from heinfer.frontend import require_same, trace

    inputs = as_inputs(calibration)
    told = Description(name, preprocessing, labels, model_version, metadata, requirements, planner)
    with shown(f"compile {name}") as tell:
        tell("trace", 0, 0)
        try:
            network = trace(module, inputs.shape[1:])
        except ShapeError as error:
            raise ShapeError(
                f"{error}; the calibration inputs have shape {inputs.shape}: the first axis counts them, "
                "and a convolution takes (N, C, H, W)"
            ) from error
        told.require(network, inputs)
        folded = fold(network)
        tell("compare with the module", 0, 0)
        require_same(module, network, folded, inputs, preprocessing.low, preprocessing.high)
        return _compiled(folded, inputs, told, tell)


def compile_network(  # noqa: PLR0913 - as compile()
    network: Network,
    calibration: Array,
    *,
    name: str,
    preprocessing: Preprocessing,
    labels: tuple[str, ...] = (),
    model_version: str = "1",
    metadata: Mapping[str, str] | None = None,
    requirements: Requirements = DEFAULT,
    planner: Planner = SEARCH,
) -> CompiledModel:
    """Compile a traced network; arguments as for compile()."""
    inputs = as_inputs(calibration)
    told = Description(name, preprocessing, labels, model_version, metadata, requirements, planner)
    told.require(network, inputs)
    with shown(f"compile {name}") as tell:
        return _compiled(fold(network), inputs, told, tell)


def _compiled(folded: Network, inputs: Array, told: Description, tell: Tell) -> CompiledModel:
    is_classification = bool(told.labels)
    tell("balance", 0, 0)
    balanced = balance(folded, inputs, is_classification=is_classification)
    peaks: list[int] = []

    def planned(required: Requirements) -> tuple[Plan, Scaled]:
        """A plan and its circuit with scales, however precise."""
        plan, circuit = plan_circuit(
            balanced.network,
            required,
            told.planner,
            tell,
            planned=lambda plan: peaks.append(predicted_peak(plan, len(inputs))),
        )
        validate_structure(circuit)
        return plan, scale(
            circuit,
            plan.parameters,
            plan.input_level,
            plan.input.pack(plan.in_batches(inputs)),
            plan.output,
            largest_input=told.preprocessing.largest,
            scores=prod(folded.output_shape),
            is_classification=is_classification,
            headroom=required.headroom,
            least_bits=required.precision_bits,
            tell=tell,
        )

    wanted, most = told.requirements.precision_bits, None
    plan, calibrated = planned(told.requirements)
    if calibrated.precision.bits < wanted and _can_widen(plan, told.planner):
        with suppress(PlanError):  # no ring has room for that
            wider = planned(replace(told.requirements, prime_bits=SPECIAL_BITS))
            most = wider[1].precision.bits
            plan, calibrated = wider if most > calibrated.precision.bits else (plan, calibrated)
    require(calibrated.precision, calibrated.scores, wanted, most)
    validate(calibrated.typed, calibrated.bounds)
    try:
        manifest = _manifest(plan, calibrated, balanced.exponent, told)
    except ValidationError as error:
        raise CompileError(f"no manifest can describe the model: {first_reason(error)}") from error
    metadata = {"policy": told.planner.name} | calibrated.precision.metadata | dict(told.metadata or {})
    bundle = Bundle(manifest, calibrated.typed.circuit, calibrated.bounds, metadata)
    return CompiledModel(folded, plan, bundle, max(peaks))


def _can_widen(plan: Plan, planner: Planner) -> bool:
    return not planner.is_prescribed and min(plan.parameters.data_primes).bit_length() < SPECIAL_BITS


def _manifest(plan: Plan, calibrated: Scaled, exponent: int, told: Description) -> Manifest:
    typed = calibrated.typed
    output = typed.output_types[0]
    return Manifest(
        name=told.name,
        model_version=told.model_version,
        parameters=ParametersPart.of(typed.parameters),
        batch=plan.batch,
        inputs=(
            InputPart(
                name="image",
                preprocessing=told.preprocessing,
                layout=LayoutPart.from_layout(plan.input),
                level=typed.input_level,
                scale=typed.input_scale,
            ),
        ),
        outputs=(
            OutputPart(
                name="scores",
                kind="classification" if told.labels else "values",
                layout=LayoutPart.from_layout(plan.output),
                level=output.level,
                scale=output.scale,
                exponent=-exponent,
                range=ldexp(calibrated.range, -exponent),
                labels=told.labels,
            ),
        ),
        key_sets=(KeysPart.of(typed.key_levels),),
    )
