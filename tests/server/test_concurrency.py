"""How many may be inside, of each holder and of all, and who waits for a place."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heinfer.errors import BusyError
from heinfer_server.admission.concurrency import ConcurrencyLimit, WaitingLimit


def test_a_gate_is_full_and_then_is_not():
    limit = ConcurrencyLimit(2, 2)
    with limit.entered("a"), limit.entered("b"), pytest.raises(BusyError, match="later"), limit.entered("c"):
        pass
    with limit.entered("c"):
        assert limit.inside == 1
    assert not limit.holders


def test_a_gate_lets_nobody_have_all_of_it():
    limit = ConcurrencyLimit(3, 2)
    with limit.entered("a"), limit.entered("a"):
        with pytest.raises(BusyError, match="2 of your requests"), limit.entered("a"):
            pass
        with limit.entered("b"):
            assert limit.inside == 3


def test_who_waits_for_a_place_gets_it_holder_after_holder():
    async def use() -> list[str]:
        limit, order = WaitingLimit(1, 1, 60.0), []

        async def enter(holder: str) -> None:
            async with limit.entered_in_turn(holder):
                order.append(holder)
                await asyncio.sleep(0)

        await asyncio.gather(*(enter(holder) for holder in "aaaabbca"))
        assert not limit.holders
        assert not limit._waiting
        return order

    assert "".join(asyncio.run(use())) == "aabcabaa"


def test_who_has_its_share_waits_and_others_do_not():
    async def use() -> None:
        limit = WaitingLimit(3, 2, 0.05)
        async with limit.entered_in_turn("a"), limit.entered_in_turn("a"):
            waiting = asyncio.create_task(limit.entered_in_turn("a").__aenter__())
            await asyncio.sleep(0)
            assert not waiting.done()
            async with limit.entered_in_turn("b"):
                assert limit.inside == 3
            with pytest.raises(BusyError, match="2 of your requests"):
                await waiting
        assert limit.inside == 0

    asyncio.run(use())


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["enter", "end", "leave"])), max_size=60))
@settings(deadline=None, max_examples=100)
def test_no_place_is_lost_whoever_leaves_and_when(events):
    async def use() -> None:
        limit = WaitingLimit(3, 2, 60.0)
        entering: list[tuple[asyncio.Task[None], asyncio.Event]] = []

        async def enter(holder: str, end: asyncio.Event) -> None:
            async with limit.entered_in_turn(holder):
                assert limit.holders[holder] <= 2
                assert limit.inside <= 3
                await end.wait()

        for holder, event in events:
            if event == "enter":
                end = asyncio.Event()
                entering.append((asyncio.create_task(enter(holder, end)), end))
            elif entering and event == "leave":
                entering[len(entering) // 2][0].cancel()
            elif entering:
                entering[0][1].set()
                entering.pop(0)
            if event != "end":
                await asyncio.sleep(0)
        for task, _ in entering:
            task.cancel()
        for _ in range(len(events) + 5):
            await asyncio.sleep(0)
        assert not limit.holders
        assert not limit._waiting

    asyncio.run(use())
