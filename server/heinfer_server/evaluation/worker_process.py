"""What a worker process runs."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING

from heinfer_server.evaluation.handover import read_setup
from heinfer_server.evaluation.process import answer_all
from heinfer_server.evaluation.signals import leave_to_the_service
from heinfer_server.evaluation.tasks import Evaluated, EvaluationTask, Loaded, Setup, TaskFailure

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from heinfer_server.evaluation.evaluator import Evaluator
    from heinfer_server.evaluation.watching import Cell

_PR_SET_PDEATHSIG = 1  # linux/prctl.h

_evaluator: Evaluator | None = None  # one a process: what it is asked for are functions


def serve(handover: str, cell: Cell, pipe: Connection) -> None:
    """Load the models of a handover, and answer until the service ends."""
    leave_to_the_service()
    _die_with_parent()
    start(read_setup(handover), cell)
    answer_all(pipe)


def start(setup: Setup, cell: Cell | None = None) -> None:
    """Load the models."""
    # Imported here, because the parent imports this module: its process loads no backend.
    from heinfer_server.evaluation.evaluator import Evaluator  # noqa: PLC0415

    global _evaluator  # noqa: PLW0603
    _evaluator = Evaluator(setup, cell)


def ready() -> list[Loaded]:
    """Return, which a worker can only once it has started, what it has loaded."""
    assert _evaluator is not None
    return _evaluator.loaded


def forget(key_ids: Sequence[str]) -> None:
    """Let go of loaded keys in this worker process."""
    assert _evaluator is not None
    _evaluator.forget(key_ids)


def run(task: EvaluationTask) -> Evaluated | TaskFailure:
    """Evaluate one request in this worker process."""
    assert _evaluator is not None
    return _evaluator.run(task)


def _die_with_parent() -> None:
    """Leave nothing behind when the service is killed, not even a worker that is stopped or in an evaluation.

    The kernel sends the signal when the thread that made this process ends: one of the event loop's own, which last as
    long as the service.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:  # it died before
        os._exit(1)
