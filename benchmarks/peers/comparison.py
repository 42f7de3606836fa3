"""peers: other libraries on their own example networks, beside heinfer with the same weights, in turn."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import log2
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.progress import track
from torch import nn

import heinfer
from benchmarks.peers.channel import reset_peak
from benchmarks.peers.environment import Driven, driven, interpreter
from benchmarks.peers.networks import SEED, in_unit_range, scores, trained, training_images
from benchmarks.support.memory import peak_bytes
from benchmarks.support.options import Json
from benchmarks.support.records import Record, spread, write_table
from heinfer.errors import SettingError
from heinfer.formats import bundle
from heinfer.formats.manifest import Preprocessing
from heinfer.planner.planner import SEARCH
from heinfer.planner.requirements import DEFAULT, Requirements
from heinfer.zoo.data import mnist_test
from heinfer_cli.options import DataDir

Array = NDArray[np.float64]

PREPROCESSING = Preprocessing(divisor=255.0, mean=(0.0,), std=(1.0,), low=0.0, high=1.0)
CALIBRATION_IMAGES = 500
ROUNDS = 10
OURS_A_ROUND = 3
"""Evaluations of heinfer for each of the peer's."""
EXEMPT_MARGIN = 2**-8
"""Between the two largest scores, against the largest: below it, the arg max is a matter of noise."""


@dataclass(frozen=True)
class Comparison:
    """A network that a peer runs.

    Attributes:
        target: heinfer's time divided by the peer's, at most.
        requirements: what heinfer's planner is asked for.
        told: of the requirements, in words.
        rounds: evaluations of the peer.
    """

    peer: str
    network: str
    target: float
    requirements: Requirements = DEFAULT
    told: str = "none"
    rounds: int = ROUNDS

    @property
    def name(self) -> str:
        return f"{self.peer}-{self.network}"


COMPARISONS = (
    Comparison("tenseal", "tutorial", 1 / 100),
    Comparison("orion", "lola", 1 / 10),
    Comparison("orion", "mlp", 1 / 10),
    Comparison("orion", "lenet", 1 / 10, rounds=5),
)


@dataclass
class Results:
    """What one library made of the inputs."""

    seconds: list[float] = field(default_factory=list)
    scores: list[Array] = field(default_factory=list)

    def add(self, result: tuple[Sequence[float], float]) -> None:
        self.scores.append(np.asarray(result[0], dtype=np.float64))
        self.seconds.append(result[1])


def peers(
    json: Json,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Of tenseal-tutorial, orion-lola, orion-mlp, orion-lenet.", show_default="all"),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Evaluations of the peer.", show_default="10; 5 of orion-lenet")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Time the peers' example networks on the peers and on heinfer, one thread each, evaluations in turn.

    Each peer's environment is made in build/peers at first. LeNet on Orion needs 9 GB and some two minutes to compile.
    """
    wanted = [comparison for comparison in COMPARISONS if not only or comparison.name in only]
    if unknown := set(only or ()) - {comparison.name for comparison in wanted}:
        raise SettingError(f"no comparison is called {', '.join(sorted(unknown))}")
    records = [compare(comparison, rounds or comparison.rounds, data_dir) for comparison in wanted]
    write_table(records, _SHOWN, json)


_SHOWN = "peer", "network", "peer_seconds", "eval_seconds", "ratio_to_peer", "peer_key_bytes", "key_bytes"


def compare(comparison: Comparison, rounds: int, data_dir: Path | None) -> Record:
    """Train, compile for both, evaluate in turn."""
    torch.set_num_threads(1)
    module, calibration = _trained(comparison.network, data_dir)
    tests = mnist_test(data_dir)
    inputs = in_unit_range(tests.images[:rounds])
    accuracy = float((scores(module, in_unit_range(tests.images)).argmax(axis=1) == tests.labels).mean())
    clear = scores(module, inputs)
    python = interpreter(comparison.peer)
    with TemporaryDirectory() as folder, ExitStack() as stack:
        arrays = Path(folder) / "arrays.npz"
        np.savez(arrays, **({"images": inputs} | weights(module)))
        seconds, peak = _compile(comparison, module, calibration, arrays)
        own = stack.enter_context(driven("heinfer_peer", Path(sys.executable), comparison.network, arrays))
        peer = stack.enter_context(driven(f"{comparison.peer}_peer", python, comparison.network, arrays))
        ours, theirs = _in_turn(own, peer, rounds, comparison.name)
        ours_facts = own.facts | {"compile_seconds": seconds, "compile_peak_bytes": peak, "peak_bytes": own.peak_bytes}
        their_facts = peer.facts | {"compile_peak_bytes": peer.facts["peak_bytes"], "peak_bytes": peer.peak_bytes}
    return record(comparison, ours_facts, their_facts, ours, theirs, clear) | {"accuracy": round(accuracy, 4)}


def weights(module: nn.Module) -> dict[str, Any]:
    """A network's tensors by the names that the peers know them by."""
    return {name: value.numpy() for name, value in module.state_dict().items()}


def record(
    comparison: Comparison,
    ours: Mapping[str, Any],
    peer: Mapping[str, Any],
    our_results: Results,
    peer_results: Results,
    clear: Array,
) -> Record:
    """One comparison, flat: heinfer's figures by their common names, the peer's as peer_NAME.

    Args:
        ours, peer: what each said of itself.
        our_results, peer_results: in the order of the inputs; heinfer's went through them again and again.
        clear: (inputs, classes) scores of the network itself.
    """
    ratio = spread(our_results.seconds)["median"] / spread(peer_results.seconds)["median"]
    return {
        "benchmark": "peers",
        "peer": comparison.peer,
        "network": comparison.network,
        "weights": f"trained for an epoch, seed {SEED}",
        "policy": SEARCH.name,
        "requirements": comparison.told,
        "backend": "native",
        "threads": 1,
        **_facts(ours, ""),
        **_facts(peer, "peer_"),
        "eval_seconds": spread(our_results.seconds),
        "peer_seconds": spread(peer_results.seconds),
        "ratio_to_peer": round(ratio, 5),
        "target_ratio": comparison.target,
        "images": len(clear),
        **_quality(our_results, clear, ""),
        **_quality(peer_results, clear, "peer_"),
    }


def precision_bits(decrypted: Array, clear: Array) -> float:
    """-log2 of the largest error over the largest score, both of one input."""
    return -log2(float(np.abs(decrypted - clear).max() / np.abs(clear).max()))


def _facts(facts: Mapping[str, Any], prefix: str) -> Record:
    return {f"{prefix}{name}": round(v, 3) if isinstance(v, float) else v for name, v in facts.items()}


def _quality(results: Results, clear: Array, prefix: str) -> Record:
    pairs = [(found, clear[number % len(clear)]) for number, found in enumerate(results.scores)]
    decided = [(found, truth) for found, truth in pairs if _margin(truth) >= EXEMPT_MARGIN]
    return {
        f"{prefix}evaluations": len(pairs),
        f"{prefix}agreements": sum(int(found.argmax() == truth.argmax()) for found, truth in decided),
        f"{prefix}exempted": len(pairs) - len(decided),
        f"{prefix}precision_bits_min": round(min(precision_bits(*pair) for pair in pairs), 2),
    }


def _margin(truth: Array) -> float:
    second, first = np.sort(truth)[-2:]
    return float((first - second) / np.abs(truth).max())


def _trained(network: str, data_dir: Path | None) -> tuple[nn.Sequential, Array]:
    """The network, and the images that ranges come from; the others are forgotten before memory is measured."""
    images, labels = training_images(data_dir)
    calibration = images[:CALIBRATION_IMAGES].copy()
    return trained(network, images, labels, calibration), calibration


def _compile(comparison: Comparison, module: nn.Module, calibration: Array, arrays: Path) -> tuple[float, int]:
    """Compile for heinfer into a bundle beside the arrays; the seconds, and the memory of this process."""
    reset_peak()
    started = perf_counter()
    compiled = heinfer.compile(
        module,
        calibration,
        name=comparison.network,
        preprocessing=PREPROCESSING,
        requirements=comparison.requirements,
    )
    seconds = perf_counter() - started
    bundle.save(compiled.bundle, arrays.with_name(f"{comparison.network}.heinfer"))
    return seconds, peak_bytes()


def _in_turn(own: Driven, peer: Driven, rounds: int, name: str) -> tuple[Results, Results]:
    """Evaluate each input on the peer once, on heinfer some times; the first of both fills caches and is not kept."""
    ours, theirs = Results(), Results()
    own.evaluate(0)
    peer.evaluate(0)
    for number in track(range(rounds), description=name):
        for repetition in range(OURS_A_ROUND):
            ours.add(own.evaluate((number * OURS_A_ROUND + repetition) % rounds))
        theirs.add(peer.evaluate(number))
    return ours, theirs
