"""A comparison with the peer left out: heinfer's own process, driven through the pipe as a peer's is."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import heinfer
from benchmarks.peers.comparison import PREPROCESSING, precision_bits, weights
from benchmarks.peers.environment import PeerError, driven
from benchmarks.peers.networks import scores, tutorial
from heinfer.backends.native import native_problem
from heinfer.formats import bundle

pytestmark = pytest.mark.slow


@pytest.mark.skipif(native_problem() is not None, reason="heinfer-native is not built")
def test_a_driven_process_gives_the_networks_scores(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = tutorial()
    images = np.random.default_rng(0).integers(0, 256, (3, 1, 28, 28)) / 255
    arrays = tmp_path / "arrays.npz"
    np.savez(arrays, **({"images": images} | weights(module)))
    compiled = heinfer.compile(module, images, name="tutorial", preprocessing=PREPROCESSING)
    bundle.save(compiled.bundle, tmp_path / "tutorial.heinfer")
    with driven("heinfer_peer", Path(sys.executable), "tutorial", arrays) as own:
        assert own.facts["key_bytes"] == compiled.report.key_bytes
        for number, clear in enumerate(scores(module, images)):
            found, seconds = own.evaluate(number)
            assert precision_bits(np.array(found), clear) > 5
            assert 0 < seconds < 60
        assert own.peak_bytes > 1e7


def test_a_process_that_ends_is_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(PeerError, match="ended with 1"),
        driven("heinfer_peer", Path(sys.executable), "tutorial", tmp_path / "missing.npz"),
    ):
        pass
