"""Inputs that the fuzzer of the frame reader found once (tests/fuzz), and some that its mutator makes now."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fuzz"))

import frame_target

CORPUS = sorted((Path(__file__).parents[1] / "fuzz" / "corpus").iterdir())


def test_the_seeds_are_frames():
    assert all(frame_target.check(data) for data in frame_target.seeds())


def test_the_corpus_is_there_and_small():
    assert len(CORPUS) > 20
    assert sum(path.stat().st_size for path in CORPUS) < 200_000


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_the_corpus_is_refused_or_read(path):
    frame_target.check(path.read_bytes())


def test_what_the_mutator_makes_is_refused_or_read():
    random, data, frames = np.random.default_rng(0), next(frame_target.seeds()), 0
    for _ in range(3000):
        data = frame_target.mutate(data, random, lambda piece: piece[::-1])
        frames += frame_target.check(data)
    assert 100 < frames < 2900  # it goes both ways
