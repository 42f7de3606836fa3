"""foreign: train the networks that ``heinfer.convert.polynomialize`` is shown on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.foreign.registry import FOREIGN, foreign
from benchmarks.foreign.training import default_folder, train
from benchmarks.foreign.tuned import polynomialized
from heinfer.tell import say_nothing


def train_foreign(
    names: Annotated[list[str] | None, typer.Argument(help=f"Of {', '.join(FOREIGN)}.", show_default="all")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the networks.", show_default="in your cache")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    epochs: Annotated[int | None, typer.Option(min=1, show_default="each recipe's own")] = None,
) -> None:
    """Train ReLU and tanh networks as people bring them; goes on where it was interrupted."""
    for network in map(foreign, names or FOREIGN):
        about = train(network, out or default_folder(), seed=seed, epochs=epochs)
        print(f"{about.name}: held-out {about.held_out_accuracy:.2%}, test {about.test_accuracy:.2%}")


def polynomialize_foreign(
    names: Annotated[list[str] | None, typer.Argument(help=f"Of {', '.join(FOREIGN)}.", show_default="all")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the networks.", show_default="in your cache")] = None,
) -> None:
    """Make polynomials of trained foreign networks, tuned with them as teachers; goes on where it was interrupted."""
    folder = out or default_folder()
    for network in map(foreign, names or FOREIGN):
        found = polynomialized(network, folder, say_nothing)
        print(f"{network.name}, of held-out examples:\n{found.report}")
        print(f"{network.name}: test {found.test_before:.2%} before, {found.test_now:.2%} now", flush=True)
