"""Networks that ship, and reference networks with random weights: what they take does not depend on the weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

import heinfer
from benchmarks.support.records import Record, known_records
from heinfer.circuit.ir import Circuit
from heinfer.circuit.passes import remove_dead_code
from heinfer.circuit.passes.scales import Scales, assign_scales
from heinfer.circuit.typed import TypedCircuit
from heinfer.compiler.model import CompiledModel
from heinfer.formats import bundle
from heinfer.frontend import trace
from heinfer.lowering.lower import lower
from heinfer.network.folding import fold
from heinfer.network.ir import Network
from heinfer.planner.plan import Plan
from heinfer.planner.planner import SEARCH, Planner
from heinfer.planner.requirements import Requirements
from heinfer.zoo import BUNDLES, digits
from heinfer.zoo.cifar import cifar10_test
from heinfer.zoo.data import CIFAR10, MNIST, Images, mnist_test, normalise
from heinfer.zoo.reference import preprocessing
from heinfer.zoo.registry import reference

SEED = 0
RANDOM = f"random, seed {SEED}"

TRAINED = Path("benchmarks/results/trained-accuracy.json")
"""Where `trained-accuracy` writes what is known of networks that do not ship."""

SCALE_BITS, OUTPUT_BITS = 26.0, 22.0
"""Not chosen for precision, which would take data to calibrate on: times do not depend on them."""


def shipped() -> list[Path]:
    """Bundles that ship with heinfer."""
    return sorted(BUNDLES.glob("*.heinfer"))


def labelled_images(shape: tuple[int, ...], data_dir: Path | None = None) -> Images:
    """The test set of which a network takes images (channels, height, width)."""
    return (cifar10_test if shape == CIFAR10.shape else mnist_test)(data_dir)


def random_module(name: str) -> nn.Module:
    """A reference network with random weights."""
    torch.manual_seed(SEED)
    return reference(name).build().eval()


def random_network(name: str) -> Network:
    """The same, traced and folded."""
    return fold(trace(random_module(name), reference(name).data.shape))


def compile_on_digits(
    module: nn.Module, name: str, requirements: Requirements, planner: Planner = SEARCH
) -> CompiledModel:
    """A network for MNIST, calibrated on the digits that ship with heinfer."""
    images = normalise(digits().images).astype(np.float64)
    return heinfer.compile(
        module, images, name=name, preprocessing=preprocessing(MNIST), requirements=requirements, planner=planner
    )


def scaled(plan: Plan, circuit: Circuit | None = None) -> TypedCircuit:
    """The circuit of a plan, or another that was made of it, with scales that do not depend on data."""
    circuit = circuit or remove_dead_code(lower(plan))
    bits = [SCALE_BITS] * len(circuit.layers)
    bits[circuit.ops[circuit.outputs[0]].layer] = OUTPUT_BITS
    return assign_scales(circuit, plan.parameters, plan.input_level, Scales(SCALE_BITS, tuple(bits)))


def accuracies(network: str, results: Path = TRAINED) -> Record:
    """What is known of a network: of its own recipe, all images trained on; else of the brief one; and held out."""
    shipped = BUNDLES / f"{network}.heinfer"
    if shipped.exists():
        return {"accuracy": float(bundle.load(shipped).metadata["test accuracy"]), "recipe": "own"}
    found = [record for record in known_records(results) if record["network"] == network]
    for recipe in ("own", "brief"):
        of = [r for r in found if ("--brief" in str(r["command"])) == (recipe == "brief")]
        if of:
            whole = [r for r in of if "held_out_accuracy" not in r]
            held = [r for r in of if "held_out_accuracy" in r]
            known: Record = {"accuracy": whole[0]["test_accuracy"]} if whole else {}
            return known | ({"held_out_accuracy": held[0]["held_out_accuracy"]} if held else {}) | {"recipe": recipe}
    return {}
