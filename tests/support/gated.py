"""A worker of the service whose answers are heard when they are let through."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from heinfer_server.evaluation import prefetch
from heinfer_server.evaluation.questions import Evaluate, Forget, Question
from heinfer_server.evaluation.worker import Evaluation, Worker

if TYPE_CHECKING:
    from in_process import RunningService

SECONDS = 60.0


class GatedWorker(Worker):
    """What it is asked, its process gets and answers at once; while the gate is shut, the service hears nothing of it.

    Attributes:
        asked: since the gate was shut.
        answers: to those questions, in the same order; some of them may be yet to come.
        ahead: those of them that are to evaluations which were sent ahead.
        heard: how many answers were waited for since then.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._gate = asyncio.Event()
        self._gate.set()
        self._begin()

    def _begin(self) -> None:
        self.asked: list[Question[Any]] = []
        self.answers: list[asyncio.Future[Any]] = []
        self.ahead: list[asyncio.Future[Any]] = []
        self.heard = 0

    @property
    def evaluated(self) -> list[str]:
        """Ids of the keys of its evaluations, one after the other."""
        return [question.task.key_id for question in self.asked if isinstance(question, Evaluate)]

    @property
    def forgotten(self) -> list[tuple[str, ...]]:
        """Ids of keys that it was told to let go of, question by question."""
        return [question.ids for question in self.asked if isinstance(question, Forget)]

    async def shut(self) -> None:
        self._begin()
        self._gate.clear()

    async def open(self) -> None:
        self._gate.set()

    def ask(self, question: Question[Any]) -> asyncio.Future[Any]:
        self.asked.append(question)
        self.answers.append(super().ask(question))
        return self.answers[-1]

    def begin(self, request: Evaluation) -> asyncio.Future[Any]:
        self.ahead.append(super().begin(request))
        return self.ahead[-1]

    async def hear(self, answer: asyncio.Future[Any], seconds: float | None = None) -> Any:
        async def later() -> Any:
            await self._gate.wait()
            return await answer

        self.heard += 1
        return await super().hear(asyncio.ensure_future(later()), seconds)


@contextmanager
def held_worker(running: RunningService, *, takes_another: bool = False) -> Iterator[GatedWorker]:
    """The only worker, with its gate shut; in the end, what waits for it is done.

    Args:
        takes_another: whether another request may be sent to it while one is under way.
    """
    worker, pool, short = running.worker, running.service.workers, prefetch.SHORT_SECONDS
    running.portal.call(worker.shut)

    async def until_idle() -> None:
        await worker.open()
        async with asyncio.timeout(SECONDS):
            while pool.busy or not pool.free:
                await asyncio.sleep(0.01)

    try:
        if not takes_another:
            prefetch.SHORT_SECONDS = 0.0
        yield worker
    finally:
        running.portal.call(until_idle)
        prefetch.SHORT_SECONDS = short
