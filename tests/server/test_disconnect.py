"""Clients who go away while they wait for a turn."""

import asyncio

import pytest

from heinfer_server.evaluation.disconnect import DisconnectedError, unless
from heinfer_server.evaluation.fair_queue import FairQueue, Turn


def test_a_turn_that_comes_as_the_client_goes_is_the_next_ones():
    async def use() -> None:
        turns = FairQueue(1)
        turn = Turn(turns, "a", 1.0)
        gone = asyncio.get_running_loop().create_future()
        await unless(gone, turn.take(), give_up=turn.give_up)
        waiting = asyncio.create_task(unless(gone, turn.take(), give_up=turn.give_up))
        while not turns.waiting:
            await asyncio.sleep(0)
        turns.give_back()
        gone.set_result(None)
        with pytest.raises(DisconnectedError):
            await waiting
        with pytest.raises(DisconnectedError):  # gone before it had to wait
            await unless(gone, turn.take(), give_up=turn.give_up)
        while not turns.free:
            await asyncio.sleep(0)

    asyncio.run(use())


def test_a_wait_that_is_cancelled_takes_no_turn():
    async def use() -> None:
        turns = FairQueue(0)
        gone = asyncio.get_running_loop().create_future()
        waiting = asyncio.create_task(unless(gone, turns.take("a"), give_up=turns.give_back))
        while not turns.waiting:
            await asyncio.sleep(0)
        waiting.cancel()
        turns.give_back()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        while not turns.free:
            await asyncio.sleep(0)

    asyncio.run(use())
