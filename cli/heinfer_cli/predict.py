"""heinfer predict: images to labels, by a service that does not see them."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from heinfer.errors import ImageError
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
from heinfer_cli.out_of_range import OUT_OF_RANGE_MEANS, confidence_in_words, in_words

if TYPE_CHECKING:
    from heinfer_client.images import Image


def predict(  # noqa: PLR0913, PLR0917 - one option for each choice
    url: Url,
    images: Annotated[
        list[Path], typer.Argument(help="Pictures, such as PNG; or .npy arrays, uint8 or float in 0..1.")
    ],
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
) -> None:
    """Encrypt images, have them classified unseen, in batches if the model takes them, and print the labels."""
    with needs("client"):
        from heinfer_client import Client

    loaded = [_load(path) for path in images]
    table = Table("image", "label", "confidence", "client ms", "server ms", "bytes")
    for column in table.columns[1:]:
        column.justify = "right"
    captions = []
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
            predictions = client.encrypt_and_predict_many(loaded, maximum=maximum)
        except ImageError as error:
            path, image = images[error.number - 1], loaded[error.number - 1]
            way_out = _way_out(path, image, error.way_out, client.manifest.input_shape)
            raise ImageError(f"{path}: {error.cause}", way_out) from error
        for path, prediction in zip(images, predictions, strict=True):
            table.add_row(
                path.name,
                prediction.label,
                confidence_in_words(prediction),
                f"{prediction.client_seconds * 1000 / prediction.images:.0f}",
                f"{prediction.server_seconds * 1000 / prediction.images:.0f}",
                f"{(prediction.upload_bytes + prediction.download_bytes) // prediction.images:,}",
            )
        if client.manifest.batch > 1:
            captions.append(f"{client.manifest.batch} images a request: each with its share of time and bytes")
        if not all(prediction.in_range for prediction in predictions):
            captions.append(OUT_OF_RANGE_MEANS)
    table.caption = "\n".join(captions) or None
    Console().print(table)


def _load(path: Path) -> Image:
    """Read an array, or a picture as its file has it: what it means is the client's to say."""
    import numpy as np

    with needs("client"):
        from PIL import Image as Pictures

    try:
        if path.suffix == ".npy":
            array: Image = np.load(path, allow_pickle=False)
            return array
        data = path.read_bytes()
        Pictures.open(BytesIO(data)).load()  # not of what is returned: how a file holds its pixels is lost with that
        return Pictures.open(BytesIO(data))
    except Exception as error:  # readers of files raise whatever a damaged one brings them to
        raise ImageError(f"{path} cannot be read: give a PNG file or an array that numpy.save wrote") from error


def _way_out(path: Path, image: Image, in_python: str, shape: tuple[int, ...]) -> str:
    """What somebody in a shell does about an image that does not fit."""
    if "maximum=" in in_python:
        return in_python.replace("maximum=", "--maximum ")
    if path.suffix == ".npy" or len(shape) not in (2, 3):
        return in_python
    first = "[0]" if getattr(image, "n_frames", 1) > 1 else ""
    ground = " -background black -alpha remove" if getattr(image, "has_transparency_data", True) else ""
    grey = " -colorspace Gray" if len(shape) == 2 or shape[0] == 1 else " -colorspace sRGB"
    size = f"{shape[-1]}x{shape[-2]}!"
    return (
        f"magick {quote(str(path) + first)} -auto-orient{ground} -resize {size}{grey} fitting.png makes one that does"
        + (", black being what is behind it" if ground else "")
    )
