"""heinfer check: all that stands between a model and its encrypted twin, before any training."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from zipfile import BadZipFile

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from heinfer.errors import SettingError
from heinfer.extras import needs
from heinfer_cli.options import Costs, CostsOf
from heinfer_cli.report_table import print_cost, print_report

if TYPE_CHECKING:
    from heinfer.compiler.check import Check, Shapes

_STYLES = {"as is": "green", "changes": "yellow", "cannot": "red"}
_STATUS = {"as is": 0, "changes": 1, "cannot": 2}
_SUMMARY = {
    "as is": "heinfer.compile takes it as it is.",
    "changes": "It compiles once the calls marked so are what is said there, and it is fine-tuned.",
    "cannot": "It does not compile before the calls marked so are replaced.",
}


def check(
    model: Annotated[
        str,
        typer.Argument(
            metavar="FILE|MODULE:NAME",
            help="An .onnx file, a .pt2 file of torch.export.save, or what NAME is, or returns, in a Python module.",
        ),
    ],
    shape: Annotated[
        list[str] | None,
        typer.Option(
            metavar="C,H,W|NAME=C,H,W",
            help="Of one input, without the batch; of several inputs once for each.",
            show_default="as the file says",
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Inputs as the model takes them, (n, C, H, W): .npy, or .npz with an array for each input by its "
            "name. With them polynomials are fitted, the whole is compiled, and its precision is known.",
        ),
    ] = None,
    backend: CostsOf = None,
    costs: Costs = None,
) -> None:
    """Say of every layer whether it compiles, what must change and what cannot be, and what the whole would take.

    The exit code is 0 for a model that compiles as it is, 1 for one that does after changes, 2 for one that does not.
    """
    with needs("train"):
        from heinfer.compiler.check import check as checked
        from heinfer.compiler.progress import shown
        from heinfer.compiler.report import report, shown_backend
        from heinfer.frontend import example_shape
        from heinfer.planner.requirements import DEFAULT, Requirements

    found = _read(model)
    inputs = _arrays(calibration) if calibration else None
    sizes = _shapes(shape) if shape else None if inputs is not None else example_shape(found)
    if sizes is None and inputs is None:
        raise SettingError(f"{model} does not say the shape of its input: give --shape, such as --shape 3,32,32")
    requirements = Requirements(backend=backend or DEFAULT.backend, costs=costs)
    with shown(f"check {model}"):
        result = checked(found, sizes, requirements, calibration=inputs)
    console = Console()
    print_check(result, console)
    if result.model:
        print_report(report(result.model.bundle, backend, costs), console)
    elif result.cost:
        print_cost(Path(model).name, "heinfer", result.cost, backend or shown_backend(result.cost.predicted), console)
    verdict = str(result.assumed.verdict)
    console.print(Text(_SUMMARY[verdict] if not result.refusal else "There is no plan for it.", style="bold"))
    raise typer.Exit(2 if result.refusal else _STATUS[verdict])


def print_check(result: Check, console: Console) -> None:
    """Print a row for each call, and what is wrong with the whole."""
    table = Table(title="layer by layer")
    for name in ("layer", "function", "verdict", "becomes, or what to do", "line"):
        table.add_column(name, overflow="fold")
    for call in result.assumed.calls:
        text = call.text.partition(": ")[2] if call.verdict == "cannot" else call.text
        table.add_row(call.path, call.function, Text(str(call.verdict), style=_STYLES[call.verdict]), text, call.line)
    console.print(table, "")
    for problem in result.assumed.problems:
        console.print(Text(problem, style="red"))
    if result.assumed.network is not None:
        console.print(_depth(result), "")
    if result.polynomials is not None:
        console.print(str(result.polynomials), "", highlight=False)
    if result.refusal:
        console.print(Text(result.refusal, style="red"), "")


def _depth(result: Check) -> str:
    from heinfer.planner.parameters import levels_there_are

    deep = f"{result.products} products of ciphertexts deep"
    if result.cost is None:
        return deep
    return f"{deep}: {result.cost.input_level} levels of the {levels_there_are()} that the largest ring has room for"


def _shapes(texts: list[str]) -> Shapes:
    """One shape, or one for each name."""
    if len(texts) == 1 and "=" not in texts[0]:
        return _sizes(texts[0])
    found = dict(text.partition("=")[::2] for text in texts)
    if len(found) < len(texts):
        raise SettingError("--shape of several inputs is NAME=C,H,W, once for each name")
    return {name: _sizes(text) for name, text in found.items()}


def _sizes(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(n) for n in text.split(","))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise SettingError(f"--shape is whole numbers with commas between, such as 3,32,32; not {text!r}")
    return sizes


def _arrays(path: Path) -> Any:
    """An array, or several by name."""
    import numpy as np

    try:
        read = np.load(path, allow_pickle=False)
        return read if isinstance(read, np.ndarray) else {name: read[name] for name in read.files}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise SettingError(f"{path} cannot be read as what numpy.save or numpy.savez has written: {error}") from error


def _read(model: str) -> Any:
    """What an argument names."""
    path = Path(model)
    if path.suffix in (".pt", ".pth", ".ckpt"):
        raise SettingError(
            f"{model} holds Python objects, and reading it may run anything: name the module that builds the network, "
            "as in mypackage.networks:build, or torch.export.save it as .pt2"
        )
    if path.suffix == ".pt2":
        import torch

        return torch.export.load(path)
    if path.suffix == ".onnx":
        return path
    name, colon, attribute = model.partition(":")
    if not colon:
        raise SettingError(f"{model} is no .onnx or .pt2 file: name a network as module:name, as in networks:build")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(name), attribute)
    except (ImportError, AttributeError) as error:
        raise SettingError(f"{model} cannot be found: {error}") from error
    finally:
        sys.path.pop(0)
    return found() if callable(found) and (isinstance(found, type) or not hasattr(found, "named_modules")) else found
