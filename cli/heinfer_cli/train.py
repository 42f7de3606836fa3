"""heinfer train: a reference network from its data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from heinfer.extras import needs
from heinfer_cli.options import DataDir


def train(  # noqa: PLR0913, PLR0917 - one option for each choice
    name: Annotated[str, typer.Argument(help="A reference network, such as mnist-ffconv or cifar-fast.")],
    seed: Annotated[int, typer.Option(help="Of initial weights, order and augmentation.")] = 0,
    epochs: Annotated[int | None, typer.Option(help="Of every stage.", show_default="the recipe's")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the result.", show_default="user's cache")] = None,
    data_dir: DataDir = None,
    threads: Annotated[int | None, typer.Option(help="That PyTorch may use.", show_default="its choice")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    brief: Annotated[bool, typer.Option("--brief", help="By the shorter recipe, to compare ranks or blocks.")] = False,
    hold_out: Annotated[
        bool, typer.Option("--hold-out", help="Keep the last 5,000 training images out, and report accuracy on them.")
    ] = False,
) -> None:
    """Train a reference network: seeded, and resumed where it was interrupted."""
    with needs("train"):
        from heinfer.zoo.training import default_out
        from heinfer.zoo.training import train as run

    result = run(
        name,
        seed=seed,
        epochs=epochs,
        out=out or default_out(),
        data_dir=data_dir,
        threads=threads,
        hold_out=hold_out,
        device=device,
        brief=brief,
    )
    held_out = "" if result.held_out_accuracy is None else f"{result.held_out_accuracy:.2%} held out, "
    typer.echo(
        f"{result.path}: {result.test_accuracy:.2%} on the test images, {held_out}{result.seconds:.0f} s of training"
    )
