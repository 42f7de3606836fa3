"""heinfer predict: images, or other inputs, to labels and values, by a service that does not see them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated
from zipfile import ZipFile

import typer
from rich.console import Console
from rich.table import Table

from heinfer.errors import ImageError, SettingError
from heinfer.extras import needs
from heinfer_cli.client_options import (
    AllowPlainHttp,
    ApiKey,
    Ca,
    Certificate,
    PassphraseFile,
    Url,
    UseKeyring,
    passphrase_of,
)
from heinfer_cli.input_files import Loaded, load, load_by_name
from heinfer_cli.out_of_range import OUT_OF_RANGE, OUT_OF_RANGE_MEANS, confidence_in_words, in_words

if TYPE_CHECKING:
    from heinfer.formats.manifest import Manifest
    from heinfer_client import Prediction

_SHOWN = 8
"""Values of an output that are printed."""


def predict(  # noqa: PLR0913, PLR0917 - one option for each choice
    url: Url,
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Pictures, such as PNG; .npy arrays, uint8 or float in 0..1; .csv tables, a record a row, below the "
            "names of the columns where the model names its features."
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="Name of a model that the service has.")] = "mnist-ffconv",
    api_key: ApiKey = None,
    allow_plain_http: AllowPlainHttp = False,
    ca: Ca = None,
    certificate: Certificate = None,
    keys: Annotated[
        Path | None, typer.Option(help="File that keeps the secret key for the next time; by default none does.")
    ] = None,
    passphrase_file: PassphraseFile = None,
    keyring: UseKeyring = False,
    maximum: Annotated[
        int | None, typer.Option(help="The integer that is white, such as 4095, where the file does not say it.")
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", metavar="NAME=FILE", help="Of a model of several inputs: each by its name, instead of IMAGES."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npz", help="File for all outputs by name, a row each input; scores are for you alone."
        ),
    ] = None,
) -> None:
    """Encrypt images or records, have them evaluated unseen, in batches if the model takes them, and print labels."""
    with needs("client"):
        from heinfer_client import Client

    if bool(images) == bool(inputs):
        raise SettingError("give files, or each input of the model as --input NAME=FILE")
    if out and (out.suffix != ".npz" or not out.parent.is_dir()):
        raise SettingError(f"{out} must be the name of a file .npz in a folder that there is")
    loaded = [load_by_name(inputs)] if inputs else [each for path in images or () for each in load(path)]
    client = Client(
        url,
        model=model,
        keys_path=keys,
        keys_passphrase=passphrase_of(keys, passphrase_file, keyring),
        keys_keyring=keyring,
        api_key=api_key,
        ca=ca,
        certificate=certificate,
        allow_plain_http=allow_plain_http,
    )
    with in_words(), client:
        try:
            predictions = client.encrypt_and_predict_many([each.given for each in loaded], maximum=maximum)
        except ImageError as error:
            wrong = loaded[error.number - 1]
            way_out = _way_out(wrong, error.way_out, client.manifest)
            raise ImageError(f"{wrong.path or wrong.title}: {error.cause}", way_out) from error
        Console().print(_table([each.title for each in loaded], predictions, client.manifest))
    if out:
        _save(out, predictions)


def _table(titles: Sequence[str], predictions: Sequence[Prediction], manifest: Manifest) -> Table:
    """A row for each output of each input."""
    outputs = manifest.outputs
    result = "label" if all(part.kind == "classification" for part in outputs) else "result"
    table = Table("image" if len(manifest.inputs) == 1 else "inputs")
    for name in (*(["output"] if len(outputs) > 1 else []), result, "confidence", "client ms", "server ms", "bytes"):
        table.add_column(name, justify="left" if name == "output" else "right")
    for title, prediction in zip(titles, predictions, strict=True):
        first = [
            f"{prediction.client_seconds * 1000 / prediction.images:.0f}",
            f"{prediction.server_seconds * 1000 / prediction.images:.0f}",
            f"{(prediction.upload_bytes + prediction.download_bytes) // prediction.images:,}",
        ]
        for number, part in enumerate(outputs):
            row = [part.name] if len(outputs) > 1 else []
            row += _said(prediction, part.name)
            table.add_row("" if number else title, *row, *([] if number else first))
    captions = []
    if manifest.batch > 1:
        captions.append(f"{manifest.batch} images a request: each with its share of time and bytes")
    if not all(prediction.in_range for prediction in predictions):
        captions.append(OUT_OF_RANGE_MEANS)
    table.caption = "\n".join(captions) or None
    return table


def _said(prediction: Prediction, output: str) -> tuple[str, str]:
    """Label and confidence; of values these, or their shape where they are many."""
    if output in prediction.labels:
        return prediction.labels[output], confidence_in_words(prediction, output)
    values = prediction.outputs[output]
    many = f"{' x '.join(map(str, values.shape))} values"
    said = ", ".join(f"{value:.5g}" for value in values.reshape(-1)) if values.size <= _SHOWN else many
    return said, "" if prediction.in_range else OUT_OF_RANGE


def _save(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write the outputs of all predictions to a file that its owner alone may read."""
    import numpy as np

    several = [prediction.outputs for prediction in predictions]
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file, ZipFile(file, "w") as archive:
        for name in several[0]:  # numpy.savez takes no name that an argument of its own has
            with archive.open(f"{name}.npy", "w") as entry:
                np.lib.format.write_array(entry, np.stack([outputs[name] for outputs in several]))


def _way_out(wrong: Loaded, in_python: str, manifest: Manifest) -> str:
    """What somebody in a shell does about an image that does not fit."""
    path, image, shape = wrong.path, wrong.given, manifest.input_shape
    if path is not None and len(manifest.inputs) > 1:
        return f"give {' '.join(f'--input {part.name}=FILE' for part in manifest.inputs)}"
    if "maximum=" in in_python:
        return in_python.replace("maximum=", "--maximum ")
    if path is None or path.suffix in {".npy", ".csv"} or len(shape) not in (2, 3):
        return in_python
    first = "[0]" if getattr(image, "n_frames", 1) > 1 else ""
    ground = " -background black -alpha remove" if getattr(image, "has_transparency_data", True) else ""
    grey = " -colorspace Gray" if len(shape) == 2 or shape[0] == 1 else " -colorspace sRGB"
    size = f"{shape[-1]}x{shape[-2]}!"
    return (
        f"magick {quote(str(path) + first)} -auto-orient{ground} -resize {size}{grey} fitting.png makes one that does"
        + (", black being what is behind it" if ground else "")
    )
