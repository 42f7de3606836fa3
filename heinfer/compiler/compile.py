"""compile(): from a trained torch module to everything that running it encrypted takes.

Trace, fold, balance, plan, lower, calibrate, assign scales, validate: each step is one function, named here in
the order in which it happens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from math import ldexp
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from heinfer.circuit.validate import validate, validate_structure
from heinfer.compiler.arguments import Described, Description, Labels, Outputs, Preprocessings, name_of
from heinfer.compiler.calibration import Given, as_inputs
from heinfer.compiler.memory import predicted_peak
from heinfer.compiler.model import CompiledModel
from heinfer.compiler.precision import require
from heinfer.compiler.progress import shown
from heinfer.compiler.scaling import Scaled, scale
from heinfer.errors import CompileError, PlanError, ShapeError
from heinfer.extras import needs
from heinfer.formats.bundle import Bundle
from heinfer.formats.ends_part import version_for
from heinfer.formats.manifest import (
    InputPart,
    KeysPart,
    LayoutPart,
    Manifest,
    OutputPart,
    ParametersPart,
    first_reason,
)
from heinfer.layout.layout import Layout
from heinfer.layout.parts import TensorPart, split
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
    from heinfer.frontend import Model

Array = NDArray[np.float64]


def compile(  # noqa: A001, PLR0913 - the word users expect; one keyword for each thing that can be said
    model: Model,
    calibration: Given,
    *,
    name: str,
    preprocessing: Preprocessings,
    labels: Labels = (),
    outputs: Outputs | tuple[str, ...] | None = None,
    model_version: str = "1",
    metadata: Mapping[str, str] | None = None,
    requirements: Requirements = DEFAULT,
    planner: Planner = SEARCH,
) -> CompiledModel:
    """Compile a trained network.

    Args:
        model: a torch module, what torch.export made of one, or an ONNX file or model (opset 13 and up). It is run in
            evaluation mode on some of the calibration inputs, and refused where the compiled network would compute
            something else. It stays as it is.
        calibration: (batch, *input_shape) representative inputs, preprocessed: ranges and scales come from them. Of
            several inputs a mapping of names to such: those of the arguments of the module's forward, or in their
            order; where it has one argument, in the order of their concatenation (batch, n).
        name: under which a server offers the model.
        preprocessing: how a client turns pixels, or other numbers, into inputs; pixels are clipped to its range. Of
            several inputs a mapping of their names.
        labels: a name for each score. They declare a classification: what all scores share may be taken out of them,
            when it eats their range. Of several outputs a mapping of the names of those that classify.
        outputs: names of the tensors that the module returns, if it returns a tuple of them; or names and shapes of
            the parts of the one that it returns, in their order. By default it is one, or they are the keys of a
            mapping. They are looked for where this, labels or calibration is a mapping.
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
        from heinfer.compiler.joined_module import as_one
        from heinfer.frontend import module_of, require_same, trace

    inputs = as_inputs(calibration, name_of(preprocessing))
    told = Description(name, preprocessing, labels, outputs, model_version, metadata, requirements, planner)
    with shown(f"compile {name}") as tell:
        tell("trace", 0, 0)
        module: Any = module_of(model, inputs.values if len(inputs.parts) == 1 else None)
        if len(inputs.parts) > 1 or outputs is not None or isinstance(labels, Mapping):
            module, told = _of_one_tensor(as_one(module, inputs.parts, inputs.values, outputs), told)
        try:
            network = trace(module, inputs.values.shape[1:])
        except ShapeError as error:
            raise ShapeError(
                f"{error}; the calibration inputs have shape {inputs.values.shape}: the first axis counts them, "
                "and a convolution takes (N, C, H, W)"
            ) from error
        described = told.require(network, inputs)
        folded = fold(network)
        tell("compare with the module", 0, 0)
        low, high = described.ends
        require_same(module, network, folded, inputs.values, low, high)  # type: ignore[arg-type]  # arrays broadcast
        return _compiled(folded, inputs.values, described, tell)


def _of_one_tensor(found: tuple[Any, Outputs | None], told: Description) -> tuple[Any, Description]:
    """The module and the description with what a run of it has shown of its outputs."""
    module, shapes = found
    if shapes is None:
        return module, told
    if isinstance(told.outputs, Mapping) and dict(told.outputs) != shapes:
        raise ShapeError(f"the outputs of the model have the shapes {shapes}, not {dict(told.outputs)}")
    return module, replace(told, outputs=shapes)


def compile_network(  # noqa: PLR0913 - as compile()
    network: Network,
    calibration: Given,
    *,
    name: str,
    preprocessing: Preprocessings,
    labels: Labels = (),
    outputs: Outputs | None = None,
    model_version: str = "1",
    metadata: Mapping[str, str] | None = None,
    requirements: Requirements = DEFAULT,
    planner: Planner = SEARCH,
) -> CompiledModel:
    """Compile a traced network; arguments as for compile()."""
    inputs = as_inputs(calibration, name_of(preprocessing))
    told = Description(name, preprocessing, labels, outputs, model_version, metadata, requirements, planner)
    described = told.require(network, inputs)
    with shown(f"compile {name}") as tell:
        return _compiled(fold(network), inputs.values, described, tell)


def _compiled(folded: Network, inputs: Array, described: Described, tell: Tell) -> CompiledModel:
    told, kinds = described.told, [(part, bool(described.labels(part))) for part in described.outputs]
    tell("balance", 0, 0)
    balanced = balance(
        folded, inputs, [part.elements for part in described.outputs], is_classification=described.is_classification
    )
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
            largest_input=max(described.preprocessing(part).largest for part in described.inputs),
            outputs=kinds,
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
        manifest = _manifest(plan, calibrated, balanced.exponents, described)
    except ValidationError as error:
        raise CompileError(f"no manifest can describe the model: {first_reason(error)}") from error
    metadata = {"policy": told.planner.name} | calibrated.precision.metadata | dict(told.metadata or {})
    bundle = Bundle(manifest, calibrated.typed.circuit, calibrated.bounds, metadata)
    return CompiledModel(folded, plan, bundle, max(peaks))


def _can_widen(plan: Plan, planner: Planner) -> bool:
    return not planner.is_prescribed and min(plan.parameters.data_primes).bit_length() < SPECIAL_BITS


def _manifest(plan: Plan, calibrated: Scaled, exponents: Sequence[int], described: Described) -> Manifest:
    typed, told = calibrated.typed, described.told
    output = typed.output_types[0]
    inputs = tuple(
        InputPart(
            name=part.name,
            preprocessing=described.preprocessing(part),
            layout=layout,
            level=typed.input_level,
            scale=typed.input_scale,
        )
        for part, layout in _layouts(plan.input, described.inputs, plan.batch)
    )
    outputs = tuple(
        OutputPart(
            name=part.name,
            kind="classification" if described.labels(part) else "values",
            layout=layout,
            level=output.level,
            scale=output.scale,
            exponent=-exponent,
            range=ldexp(calibrated.range, -exponent),
            labels=described.labels(part),
        )
        for (part, layout), exponent in zip(
            _layouts(plan.output, described.outputs, plan.batch), exponents, strict=True
        )
    )
    return Manifest(
        version=version_for(inputs, outputs, plan.batch),
        name=told.name,
        model_version=told.model_version,
        parameters=ParametersPart.of(typed.parameters),
        batch=plan.batch,
        inputs=inputs,
        outputs=outputs,
        key_sets=(KeysPart.of(typed.key_levels),),
    )


def _layouts(whole: Layout, parts: Sequence[TensorPart], batch: int) -> Iterator[tuple[TensorPart, LayoutPart]]:
    """Every part with its layout, in its own shape."""
    for part, layout in zip(parts, split(whole, parts, batch), strict=True):
        shape = part.shape if batch == 1 else (batch, *part.shape)
        yield part, LayoutPart.from_layout(Layout(shape, layout.index))
