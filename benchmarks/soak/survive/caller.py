"""One client in a process of its own: predicts in loops until its standard input ends, and tells of every call.

python -m benchmarks.soak.survive.caller WAY, with a Task as the first line of its input. On its output, a line of JSON
each: `{"ready": true}`, then for every call one when it begins and one when it ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count, islice
from threading import Event, Thread
from types import TracebackType
from typing import Any, NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from heinfer.errors import HeinferError, ServiceError
from heinfer_client import AsyncClient, Client, Prediction

TIMEOUT = 60.0
"""Of a client's requests, in seconds."""

PAUSE = 3.0
"""After an error, as a reasonable caller has one: two hundred that have none keep a service from starting."""
_PROCESSES = 4
"""Of a client that is forked, its parent included."""
_CALLS_OF_A_CLIENT = 20
"""Where each caller has a client of its own, it makes another one of the same key file after so many."""

Predict = Callable[[NDArray[Any]], Prediction]


@dataclass(frozen=True)
class Task:
    """What a client is to do.

    Attributes:
        url, model, api_key, keys: of the client.
        images: file of them.
        at_once: calls that are under way at the same time.
    """

    url: str
    model: str
    api_key: str
    keys: str
    images: str
    at_once: int


class Caller:
    """Calls of one process, one after the other or side by side, until the input ends."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._images = np.load(task.images)
        self._over = Event()

    @property
    def is_over(self) -> bool:
        return self._over.is_set()

    def arguments(self) -> dict[str, Any]:
        """Of a client."""
        task = self.task
        return {
            "url": task.url,
            "model": task.model,
            "api_key": task.api_key,
            "keys_path": task.keys,
            "progress": False,
            "timeout": TIMEOUT,
        }

    def watch(self) -> None:
        """Notice the end of the input; in a process that was forked, again."""

        def wait() -> None:
            os.read(sys.stdin.fileno(), 1)
            self._over.set()

        Thread(target=wait, daemon=True).start()

    def image(self, number: int) -> tuple[int, NDArray[Any]]:
        """Which one, and its pixels."""
        which = number % len(self._images)
        return which, self._images[which]

    def call(self, predict: Predict, number: int) -> None:
        """Predict, and tell of it."""
        which, image = self.image(number)
        with Call(which) as call:
            call.answered(predict(image))
        if call.has_failed:
            self._over.wait(PAUSE)

    def side_by_side(self, work: Callable[[int], None], width: int) -> None:
        """Do work in threads until it is over; it is given the number of its thread."""
        threads = [Thread(target=_work, args=(work, number)) for number in range(width)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def loop(self, predict: Predict, number: int) -> None:
        """Call until it is over."""
        for turn in count(7 * number):
            if self.is_over:
                return
            self.call(predict, turn)


def _work(work: Callable[[int], None], number: int) -> None:
    try:
        work(number)
    except BaseException:
        traceback.print_exc()
        os._exit(1)  # the whole process: its calls under way are lost, which is noticed


class Call:
    """Tells when a call begins, and how it ends; errors end here.

    Attributes:
        has_failed: whether there was one.
    """

    def __init__(self, image: int) -> None:
        self._image = image
        self.has_failed = False

    def answered(self, prediction: Prediction) -> None:
        tell(image=self._image, label=prediction.label, manifest=prediction.manifest)

    def __enter__(self) -> Self:
        tell(begun=self._image)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        self.has_failed = True
        if isinstance(error, HeinferError):
            tell(image=self._image, error=error.server_code if isinstance(error, ServiceError) else error.code)
        else:
            traceback.print_exception(error)
            tell(image=self._image, untyped=type(error).__name__)
        return True


def tell(**what: object) -> None:
    """Write a line, at once and in one piece: it is shorter than what a pipe takes so from several processes."""
    os.write(sys.stdout.fileno(), json.dumps(what).encode() + b"\n")


# The ways --------------------------------------------------------------------------------------


def plain(caller: Caller) -> None:
    """Clients that nobody shares, all of one key file."""

    def renewed(number: int) -> None:
        turns = count(7 * number)
        while not caller.is_over:
            with Client(**caller.arguments()) as client:
                for turn in islice(turns, _CALLS_OF_A_CLIENT):
                    if not caller.is_over:
                        caller.call(client.encrypt_and_predict, turn)

    with Client(**caller.arguments()) as client:
        client.prepare()
    tell(ready=True)
    caller.watch()
    caller.side_by_side(renewed, caller.task.at_once)


def threaded(caller: Caller) -> None:
    """One client that threads share, from its first request on."""
    with Client(**caller.arguments()) as client:
        tell(ready=True)
        caller.watch()
        caller.side_by_side(lambda number: caller.loop(client.encrypt_and_predict, number), caller.task.at_once)


def forked(caller: Caller) -> None:
    """One client with keys and an open connection, then used by a process and its children, by threads in each."""
    client = Client(**caller.arguments())
    client.encrypt_and_predict(caller.image(0)[1])

    def share(process: int) -> None:
        caller.watch()
        numbers = range(process, caller.task.at_once, _PROCESSES)
        caller.side_by_side(lambda number: caller.loop(client.encrypt_and_predict, numbers[number]), len(numbers))

    children = []
    for process in range(1, _PROCESSES):
        child = os.fork()
        if not child:
            try:
                share(process)
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    tell(ready=True)
    share(0)
    if any(os.waitpid(child, 0)[1] for child in children):
        sys.exit(1)


def asynchronous(caller: Caller) -> None:
    """One AsyncClient that tasks share."""
    asyncio.run(_asynchronous(caller))


async def _asynchronous(caller: Caller) -> None:
    async with AsyncClient(**caller.arguments()) as client:
        tell(ready=True)
        caller.watch()

        async def loop(number: int) -> None:
            for turn in count(7 * number):
                if caller.is_over:
                    return
                which, image = caller.image(turn)
                with Call(which) as call:
                    call.answered(await client.encrypt_and_predict(image))
                if call.has_failed:
                    await asyncio.sleep(PAUSE)

        await asyncio.gather(*(loop(number) for number in range(caller.task.at_once)))


WAYS: dict[str, Callable[[Caller], None]] = {way.__name__: way for way in (plain, asynchronous, forked, threaded)}


def main() -> NoReturn:
    way, task = WAYS[sys.argv[1]], Task(**json.loads(sys.stdin.readline()))
    way(Caller(task))
    sys.exit(0)


if __name__ == "__main__":
    main()
