"""Published methods compiled: bundles that are simulated, run on real SEAL, and agree with the cleartext network."""

import numpy as np
import pytest
from encrypted import EncryptedRun, precision_bits
from random_networks import chain, convolution, dense, polynomial

from heinfer.baselines.names import Policy
from heinfer.baselines.planning import planner_of
from heinfer.ckks.seal import Ring
from heinfer.compiler.compile import compile_network
from heinfer.compiler.model import CompiledModel
from heinfer.compiler.report import report
from heinfer.errors import CompileError
from heinfer.formats import bundle as bundles
from heinfer.formats.manifest import Preprocessing
from heinfer.lowering.circuits import cost_of
from heinfer.network.ir import Network
from heinfer.network.operators import Flatten
from heinfer.planner.requirements import DEFAULT, Limits, Requirements

UNIT = Preprocessing(divisor=255, mean=(0.0,), std=(1.0,), low=0.0, high=1.0)


def factorized() -> Network:
    """conv 1->2 3x3 s2 p1, activation, FFConv 2->1->4 2x2 s2, activation, dense 16->2."""
    rng = np.random.default_rng(0)
    pair = [convolution(rng, 2, 1, 2, 2), convolution(rng, 1, 4, 1)]
    first = convolution(rng, 1, 2, 3, 2, 1)
    return chain((1, 8, 8), first, polynomial(rng, 2), *pair, polynomial(rng, 4), Flatten(), dense(rng, 16, 2))


def inputs(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((count, 1, 8, 8))


def compiled(policy: Policy, requirements: Requirements = DEFAULT) -> CompiledModel:
    return compile_network(
        factorized(),
        inputs(32, 1),
        name="small",
        preprocessing=UNIT,
        requirements=requirements,
        planner=planner_of(policy),
    )


@pytest.fixture(scope="module", params=list(Policy))
def model(request: pytest.FixtureRequest) -> CompiledModel:
    return compiled(request.param)


def test_a_bundle_computes_the_network(model: CompiledModel) -> None:
    x = inputs(5, 2)
    expected = factorized()(x)
    np.testing.assert_allclose(model(x), expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max())
    simulated = model.simulate(x)
    np.testing.assert_allclose(model.plan.output.unpack(simulated.outputs), expected, atol=1e-10)


def test_it_runs_encrypted_and_agrees(model: CompiledModel) -> None:
    encrypted = EncryptedRun(model, Ring.secure(model.plan.parameters))
    (x,) = inputs(1, 3)
    got, expected = encrypted(x), factorized()(x[None])[0]
    assert precision_bits(got, expected) > 6
    assert got.argmax() == expected.argmax()
    executed, planned = encrypted.program.executed, model.report.counts
    assert (executed.rotations, executed.key_switches, executed.hma, executed.ct_ct_mults) == (
        planned.rotations,
        planned.key_switches,
        planned.hma,
        planned.ct_ct_mults,
    )


def test_a_report_names_the_policy_that_the_bundle_remembers(model: CompiledModel, tmp_path) -> None:
    bundles.save(model.bundle, tmp_path / "x.heinfer")
    policy = report(bundles.load(tmp_path / "x.heinfer")).policy
    assert policy == model.report.policy == model.bundle.metadata["policy"]
    facts, counted = model.report, cost_of(model.network, DEFAULT, planner_of(Policy(policy)))
    assert (counted.counts.rotations, counted.counts.key_switches, counted.counts.hma) == (
        facts.counts.rotations,
        facts.counts.key_switches,
        facts.counts.hma,
    )
    assert counted.input_level == facts.input_level
    assert counted.predicted == pytest.approx(facts.predicted, rel=0.03)


def test_rotations_of_a_published_method_are_composed_for_a_limit_alone() -> None:
    free = compiled(Policy.FFCONV, Requirements(key_price=1e9))
    limit = Limits(key_bytes=free.report.key_bytes * 3 // 4)
    fewer = compiled(Policy.FFCONV, Requirements(limits=limit))
    assert fewer.report.key_bytes <= limit.key_bytes
    assert fewer.report.counts.rotations > free.report.counts.rotations
    x = inputs(3, 4)
    np.testing.assert_allclose(fewer(x), factorized()(x), atol=1e-10)


def test_a_limit_that_a_published_method_cannot_keep_is_named() -> None:
    with pytest.raises(CompileError, match=r"policy lola has one plan.*limit upload_bytes = 300000"):
        compiled(Policy.LOLA, Requirements(limits=Limits(upload_bytes=300_000)))


def test_a_batch_shares_a_published_plan() -> None:
    one, four = (compiled(Policy.LOLA, Requirements(batch=batch)) for batch in (1, 4))
    assert four.report.counts.rotations < 2 * one.report.counts.rotations
    x = inputs(6, 5)
    np.testing.assert_allclose(four(x), factorized()(x), atol=1e-10)
