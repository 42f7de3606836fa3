"""FairQueue by what each has cost: nobody gets much more than another who waits, and whoever waits comes."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Sequence
from heapq import heappop, heappush
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heinfer_server.evaluation.fair_queue import MOST_AHEAD_SECONDS, FairQueue, Turn

COSTS = st.lists(st.floats(0.01, 5.0), min_size=1, max_size=8)
HOLDERS = st.lists(COSTS, min_size=2, max_size=5)


class House:
    """Holders that always wait, each with some requests at once, and a clock that goes from one end to the next."""

    def __init__(self, costs: Sequence[Sequence[float]], turns: int, at_once: int, expected: float) -> None:
        self.turns, self._expected = FairQueue(turns), expected
        self._costs = [iter(self._for_ever(those)) for those in costs]
        self._running: list[tuple[float, int, int, float]] = []
        self._asking: set[asyncio.Task[None]] = set()
        self._number = count()
        self.clock = 0.0
        self.had: dict[int, float] = defaultdict(float)
        self.begun: list[int] = []
        for _ in range(at_once):
            for holder in range(len(costs)):
                self.ask(holder)

    @staticmethod
    def _for_ever(costs: Sequence[float]):
        while True:
            yield from costs

    def ask(self, holder: int) -> None:
        async def take() -> None:
            await self.turns.take(str(holder), self._expected)
            cost = next(self._costs[holder])
            self.begun.append(holder)
            heappush(self._running, (self.clock + cost, next(self._number), holder, cost))

        task = asyncio.get_running_loop().create_task(take())
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def settled(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def step(self, *, asks_again: bool = True) -> int:
        """To the next end of an evaluation; returns whose."""
        await self.settled()
        self.clock, _, holder, cost = heappop(self._running)
        self.had[holder] += cost
        self.turns.settle(str(holder), cost - self._expected)
        if asks_again:
            self.ask(holder)
            await self.settled()
        self.turns.give_back()
        await self.settled()
        return holder

    async def close(self) -> None:
        for task in list(self._asking):
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)


@given(HOLDERS, st.integers(1, 4), st.integers(5, 8), st.sampled_from([0.0, 0.5, 3.0]))
@settings(deadline=None, max_examples=60)
def test_of_two_who_always_wait_none_gets_much_more(costs, turns, at_once, expected):
    async def use() -> None:
        house = House(costs, turns, at_once, expected)
        seen = [[0.0] * len(costs)]
        for _ in range(150):
            await house.step()
            seen.append([house.had[holder] for holder in range(len(costs))])
        for one in range(len(costs)):
            for other in range(one):
                ahead = [had[one] - had[other] for had in seen]
                most = max(*costs[one], expected) + max(*costs[other], expected)
                assert max(ahead) - min(ahead) <= 2 * (turns + 1) * most  # over any time between two ends
        await house.close()

    asyncio.run(use())


@given(HOLDERS, st.integers(1, 4))
@settings(deadline=None, max_examples=60)
def test_who_comes_late_waits_for_little_more_than_one_turn_of_each(costs, turns):
    async def use() -> None:
        house = House(costs, turns, 6, 0.5)
        for _ in range(100):
            await house.step()
        late = len(costs)
        house._costs.append(iter([0.1]))
        before = len(house.begun)
        house.ask(late)
        while late not in house.begun:
            await house.step()
        others = Counter(house.begun[before : house.begun.index(late)])
        assert others.total() <= len(costs) * turns
        await house.close()

    asyncio.run(use())


def test_a_long_evaluation_is_not_held_against_its_holder_for_ever():
    async def use() -> None:
        house = House([[1000.0], [1.0]], 1, 2, 0.0)
        while len([holder for holder in house.begun if holder == 0]) < 2:
            await house.step()
        others = house.begun[house.begun.index(0) + 1 :].index(0)
        assert others <= MOST_AHEAD_SECONDS + 2
        await house.close()

    asyncio.run(use())


def test_nobody_saves_up_by_staying_away():
    async def use() -> None:
        house = House([[1.0]], 1, 3, 0.0)
        for _ in range(50):
            await house.step()
        house._costs.append(iter([1.0] * 100))
        for _ in range(20):
            house.ask(1)
        before = len(house.begun)
        for _ in range(20):
            await house.step()
        assert 8 <= Counter(house.begun[before:])[1] <= 12  # not the twenty that it had not asked for before
        await house.close()

    asyncio.run(use())


def test_what_was_is_over_when_nobody_has_anything():
    async def use() -> None:
        turns = FairQueue(2)
        await turns.take("a")
        turns.settle("a", 50.0)
        turns.give_back()
        assert not turns._had
        await turns.take("b")
        await turns.take("a")
        waiting = [asyncio.create_task(turns.take(holder)) for holder in "ab"]
        await asyncio.sleep(0)
        turns.give_back()
        await asyncio.sleep(0)
        assert [turn.done() for turn in waiting] == [True, False]
        waiting[1].cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(use())


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["take", "end", "leave"])), max_size=60))
@settings(deadline=None, max_examples=100)
def test_no_turn_is_lost_whoever_leaves_and_when(events):
    async def use() -> None:
        turns = FairQueue(2)
        taking: list[tuple[str, asyncio.Task[None]]] = []
        for holder, event in events:
            if event == "take":
                taking.append((holder, asyncio.create_task(turns.take(holder, 1.0))))
            elif taking and event == "leave":
                taking[len(taking) // 2][1].cancel()  # before its turn, in the moment of it, or after
            else:
                ended = [one for one in taking if one[1].done() and not one[1].cancelled()][:1]
                for one in ended:
                    taking.remove(one)
                    turns.settle(one[0], 0.5)
                    turns.give_back()
            if event != "end":
                await asyncio.sleep(0)
        for _, task in taking:
            task.cancel()
        await asyncio.gather(*(task for _, task in taking), return_exceptions=True)
        for holder, task in taking:
            if not task.cancelled():
                turns.settle(holder, 0.0)
                turns.give_back()
        assert (turns.free, turns.waiting) == (2, 0)
        assert not turns._had
        assert not turns._under_way

    asyncio.run(use())


@pytest.mark.parametrize(("is_void", "ran", "charged"), [(True, False, 0.0), (False, False, 2.0), (True, True, 0.0)])
def test_what_was_sent_ahead_and_abandoned_is_paid(is_void, ran, charged):
    async def use() -> None:
        turns = FairQueue(1)
        turn, other = Turn(turns, "a", 2.0), Turn(turns, "b", 0.0)
        await other.take()
        waiting = asyncio.create_task(turn.take())
        await asyncio.sleep(0)
        turns.give_back()
        await waiting
        if ran:
            with turn.running():
                pass
        turn.settle(is_void=is_void)
        assert turns._had.get("a", 0.0) == pytest.approx(charged, abs=0.1)

    asyncio.run(use())


def test_turns_that_cost_the_same_go_from_holder_to_holder():
    async def use() -> list[str]:
        turns, order = FairQueue(1), []

        async def take(holder: str) -> None:
            await turns.take(holder)
            order.append(holder)
            await asyncio.sleep(0)
            turns.settle(holder)
            turns.give_back()

        await asyncio.gather(*(take(holder) for holder in "aaaabbca"))
        assert (turns.free, turns.waiting) == (1, 0)
        return order

    assert "".join(asyncio.run(use())) == "aabcabaa"


def test_as_many_turns_are_taken_at_once_as_there_are():
    async def use() -> None:
        turns = FairQueue(2)
        waiting = [asyncio.create_task(turns.take(holder)) for holder in "aaab"]
        await asyncio.sleep(0)
        assert [turn.done() for turn in waiting] == [True, True, False, False]
        turns.give_back()
        turns.give_back()
        await asyncio.gather(*waiting)
        assert (turns.free, turns.waiting) == (0, 0)

    asyncio.run(use())


def test_a_turn_that_is_not_waited_for_any_more_is_the_next_ones():
    async def use() -> None:
        turns = FairQueue(1)
        await turns.take("a")
        leaves, late, stays = (asyncio.create_task(turns.take(holder)) for holder in "aab")
        await asyncio.sleep(0)
        leaves.cancel()
        await asyncio.gather(leaves, return_exceptions=True)
        assert turns.waiting == 2
        turns.give_back()
        late.cancel()  # in the moment of its turn
        await asyncio.gather(late, return_exceptions=True)
        assert late.cancelled()
        await stays
        turns.give_back()
        assert (turns.free, turns.waiting) == (1, 0)

    asyncio.run(use())
