"""The noise of any scales, from what each group of operations adds at unit scales."""

import numpy as np
import pytest
from small_model import SHAPE, small_model

from heinfer.circuit import noise
from heinfer.circuit.ir import Circuit, Kind
from heinfer.circuit.noise import noise_at_unit_scales, predict_noise
from heinfer.circuit.passes import Scales, assign_scales, choose_scales
from heinfer.circuit.passes.alike import alike_in_scale
from heinfer.circuit.precision import Scores
from heinfer.circuit.statistics import Statistics, observe
from heinfer.compiler.model import CompiledModel
from heinfer.layout.parts import TensorPart
from heinfer.lowering.circuits import circuit_of
from heinfer.planner.requirements import Requirements


@pytest.fixture(scope="module", params=[1, 2])
def model(request: pytest.FixtureRequest) -> CompiledModel:
    return small_model(Requirements(batch=request.param))


@pytest.fixture(scope="module")
def circuit(model: CompiledModel) -> Circuit:
    return circuit_of(model.plan, Requirements())


@pytest.fixture(scope="module")
def statistics(model: CompiledModel, circuit: Circuit) -> Statistics:
    return observe(
        circuit, model.plan.input.pack(model.plan.in_batches(np.random.default_rng(3).random((8, *SHAPE)))), 1.5
    )


@pytest.mark.parametrize("bits", [22.0, 25.5])
def test_scales_of_the_skeleton_are_those_of_the_circuit(model: CompiledModel, circuit: Circuit, bits: float) -> None:
    alike = alike_in_scale(circuit)
    assert len(alike.skeleton.ops) < len(circuit.ops) / 3
    scales = Scales(34.0, tuple(bits + layer / 2 for layer in range(len(circuit.layers))))
    whole, few = (
        assign_scales(c, model.plan.parameters, model.plan.input_level, scales) for c in (circuit, alike.skeleton)
    )
    for number, op in whole.circuit:
        of = alike.of_value[number]
        assert (whole.types[number].level, whole.types[number].scale) == (few.types[of].level, few.types[of].scale)
        if op.kind is Kind.MULTIPLY_PLAIN:
            assert op.scale == few.circuit.ops[of].scale


@pytest.mark.parametrize("together", [1, 3, 8])
def test_shares_over_squares_of_scales_add_up(
    model: CompiledModel, circuit: Circuit, statistics: Statistics, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noise, "GROUPS_AT_ONCE", together)
    parameters, level = model.plan.parameters, model.plan.input_level
    typed = assign_scales(circuit, parameters, level, Scales(34.0, (24.0, 23.0, 25.0)[: len(circuit.layers)]))
    alike = alike_in_scale(circuit)
    sources, groups = alike.sources(circuit)
    parts = noise_at_unit_scales(circuit, parameters, typed.levels, statistics, groups)
    firsts = [groups.index(group) for group in range(len(sources))]
    used = [typed.circuit.ops[n].scale or typed.types[n].scale for n in firsts]
    for part, expected in zip(parts, predict_noise(typed, statistics), strict=True):
        np.testing.assert_allclose(np.array(used) ** -2.0 @ part, expected, rtol=1e-12)


def test_no_step_from_the_chosen_scales_lowers_the_noise(
    model: CompiledModel, circuit: Circuit, statistics: Statistics
) -> None:
    """By the noise of the whole circuit, which the search does not look at."""
    parameters, level = model.plan.parameters, model.plan.input_level
    seen = Scores.seen(statistics, model.plan.output, [(TensorPart("scores", (3,)), False)])
    chosen = choose_scales(circuit, parameters, level, statistics, seen, headroom=0)

    def median(scales: Scales) -> float:
        typed = assign_scales(circuit, parameters, level, scales)
        return float(np.median(seen.deviations(predict_noise(typed, statistics))))

    layers = sorted({op.layer for op in circuit.ops if op.kind is Kind.MULTIPLY_PLAIN})
    for layer in layers[:-1]:
        assert median(chosen.moved(layer, -0.5)) ** 2 > 0.99 * median(chosen) ** 2
