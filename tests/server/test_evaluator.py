"""What a worker process does, in this one."""

import gc
import weakref

import numpy as np
import pytest
from installed import INSTALLED
from owner import Owner
from tiny_model import cleartext_scores, tiny_bundle

from heinfer.errors import BackendError
from heinfer.formats import bundle as bundles
from heinfer_server.evaluation.evaluator import Evaluator
from heinfer_server.evaluation.tasks import Evaluated, EvaluationTask, Setup, TaskFailure
from heinfer_server.keys.frame_file import FrameFile
from heinfer_server.models import ServedModel, digest_of

IMAGE = np.linspace(0, 1, 16).reshape(4, 4)
MODEL = tiny_bundle()
DIGEST = digest_of(MODEL.manifest)


@pytest.fixture(scope="module")
def owner() -> Owner:
    return Owner(MODEL)


@pytest.fixture(params=INSTALLED)
def evaluator(request) -> Evaluator:
    return Evaluator(Setup((ServedModel.of(MODEL),), request.param))


def task(owner: Owner, *, keys: bool = True, key_id: str = "a") -> EvaluationTask:
    return EvaluationTask(DIGEST, key_id, FrameFile.of(owner.keys) if keys else None, owner.inputs(IMAGE))


def test_it_evaluates_and_keeps_keys_loaded(evaluator, owner):
    first = evaluator.run(task(owner))
    assert isinstance(first, Evaluated)
    assert first.keys_seconds > 0.001
    second = evaluator.run(task(owner, keys=False))
    assert isinstance(second, Evaluated)
    assert second.keys_seconds < 0.001
    for result in (first, second):
        assert owner.scores(result.frames) == pytest.approx(cleartext_scores(IMAGE), abs=0.05)


def test_it_forgets_the_keys_it_is_told_to(evaluator, owner):
    evaluator.run(task(owner))
    evaluator.run(task(owner, key_id="b"))
    evaluator.forget(("a",))
    assert list(evaluator.keys) == ["b"]


@pytest.mark.skipif("native" not in INSTALLED, reason="the native backend is not installed")
def test_it_forgets_the_weights_it_has_loaded(owner):
    model = bundles.from_bytes(bundles.to_bytes(MODEL))
    weights = [weakref.ref(constant) for constant in model.circuit.constants if constant.size > 1]
    evaluator = Evaluator(Setup((ServedModel.of(model),), "native"))
    del model
    gc.collect()
    assert weights
    assert [weight() for weight in weights] == [None] * len(weights)
    result = evaluator.run(task(owner))
    assert isinstance(result, Evaluated)
    assert owner.scores(result.frames) == pytest.approx(cleartext_scores(IMAGE), abs=0.05)


def test_a_failure_of_the_library_may_be_told_and_unloads_keys_that_came_with_it(evaluator, owner, monkeypatch):
    def refuse(*_args: object) -> None:
        raise BackendError("the library failed to multiply")

    evaluator.run(task(owner))
    monkeypatch.setattr(evaluator.runtimes[DIGEST], "run", refuse)
    for failure in (evaluator.run(task(owner, key_id="b")), evaluator.run(task(owner, keys=False))):
        assert isinstance(failure, TaskFailure)
        assert isinstance(failure.error, BackendError)
        assert "Traceback" in failure.trace
    assert list(evaluator.keys) == ["a"]


def test_a_failure_of_ours_may_not(evaluator, owner):
    failure = evaluator.run(task(owner, keys=False))  # never loaded: the parent and the worker disagree
    assert isinstance(failure, TaskFailure)
    assert failure.error is None
