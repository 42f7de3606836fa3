"""Degrees under a budget: no choice of levels loses less than the one that is found."""

from itertools import product

import numpy as np
import pytest

from heinfer.convert.polynomials import degrees
from heinfer.convert.polynomials.degrees import Step, least_levels, least_loss, most_levels
from heinfer.errors import SettingError


def deepest(steps, taken):
    depths = []
    for step, count in zip(steps, taken, strict=True):
        depths.append(count + max((depths[read] for read in step.reads), default=0))
    return max(depths)


def by_force(steps, levels):
    """The least loss, then the fewest levels, of all choices."""
    ways = product(*(step.losses for step in steps))
    return min(
        (sum(step.losses[n] for step, n in zip(steps, way, strict=True)), sum(way))
        for way in ways
        if deepest(steps, way) <= levels
    )


def random_steps(seed):
    """Up to six activations among up to nine steps, which read one or two or three earlier ones."""
    random = np.random.default_rng(seed)
    steps, sites = [Step(())], 0
    for number in range(1, int(random.integers(3, 10))):
        earlier = random.choice(number, size=min(number, int(random.integers(1, 4))), replace=False)
        reads = tuple(int(one) for one in {number - 1, *earlier}) if random.random() < 0.8 else (int(earlier[0]),)
        if sites < 6 and random.random() < 0.7:
            sites += 1
            found = sorted(random.integers(1, 9, size=4), reverse=True)
            steps.append(Step(reads, {n + 1: float(loss) for n, loss in enumerate(found)}))
        else:
            steps.append(Step(reads))
    return steps


@pytest.mark.parametrize("seed", range(40))
def test_no_choice_loses_less(seed):
    steps = random_steps(seed)
    least, most = least_levels(steps), most_levels(steps)
    for levels in range(least, most + 2):
        taken = least_loss(steps, levels)
        assert deepest(steps, taken) <= levels
        lost = sum(step.losses[count] for step, count in zip(steps, taken, strict=True))
        assert (lost, sum(taken)) == by_force(steps, levels)
    if least:
        with pytest.raises(SettingError, match=f"take {least} levels at least, not {least - 1}"):
            least_loss(steps, least - 1)


def test_branches_share_their_levels():
    one = {1: 4.0, 2: 2.0, 3: 1.0, 4: 0.0}
    beside = [Step(()), Step((0,), one), Step((0,), one), Step((1, 2))]
    assert least_loss(beside, 4) == [0, 4, 4, 0]
    behind = [Step(()), Step((0,), one), Step((1,), one), Step((1, 2))]
    assert sum(least_loss(behind, 4)) == 4


def test_more_choices_than_are_followed_still_keep_to_the_levels(monkeypatch):
    beside = [Step((0,), {1: 3.0, 2: 2.0, 3: 1.0, 4: 0.5})] * 6
    steps = [Step(()), *beside, Step(tuple(range(1, 7))), Step((7,), {1: 1.0, 2: 0.1})]
    whole = least_loss(steps, 5)
    monkeypatch.setattr(degrees, "MOST_STATES", 10)
    some = least_loss(steps, 5)
    assert deepest(steps, some) <= 5
    assert sum(s.losses[n] for s, n in zip(steps, some, strict=True)) >= by_force(steps, 5)[0]
    assert sum(s.losses[n] for s, n in zip(steps, whole, strict=True)) == by_force(steps, 5)[0]
