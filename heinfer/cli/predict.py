"""heinfer predict: images to labels, by a service that does not see them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from heinfer.cli.extras import needs
from heinfer.errors import ImageError

if TYPE_CHECKING:
    from heinfer_client.images import Image


def predict(
    url: Annotated[str, typer.Argument(help="Of the service, such as http://127.0.0.1:8000")],
    images: Annotated[list[Path], typer.Argument(help="PNG files, or .npy arrays: uint8, or float in 0..1.")],
    model: Annotated[str, typer.Option(help="Name of a model that the service has.")] = "mnist-ffconv",
    api_key: Annotated[
        str | None, typer.Option(envvar="HEINFER_API_KEY", help="If the service needs one.", show_envvar=True)
    ] = None,
    allow_plain_http: Annotated[
        bool, typer.Option("--allow-plain-http", help="Send the API key over plain http to another machine as well.")
    ] = False,
    ca: Annotated[Path | None, typer.Option(help="PEM file of the authorities to trust, such as your own.")] = None,
    certificate: Annotated[
        Path | None, typer.Option(help="PEM file of your certificate and its key, if the service asks for one.")
    ] = None,
    keys: Annotated[
        Path | None, typer.Option(help="File that keeps the secret key for the next time; by default none does.")
    ] = None,
) -> None:
    """Encrypt images, have them classified unseen, in batches if the model takes them, and print the labels."""
    with needs("client"):
        from heinfer_client import Client

    loaded = [_load(path) for path in images]
    table = Table("image", "label", "client ms", "server ms", "bytes")
    for column in table.columns[1:]:
        column.justify = "right"
    with Client(
        url,
        model=model,
        keys_path=keys,
        api_key=api_key,
        ca=ca,
        certificate=certificate,
        allow_plain_http=allow_plain_http,
    ) as client:
        for path, prediction in zip(images, client.encrypt_and_predict_many(loaded), strict=True):
            table.add_row(
                path.name,
                prediction.label,
                f"{prediction.client_seconds * 1000 / prediction.images:.0f}",
                f"{prediction.server_seconds * 1000 / prediction.images:.0f}",
                f"{(prediction.upload_bytes + prediction.download_bytes) // prediction.images:,}",
            )
        if client.manifest.batch > 1:
            table.caption = f"{client.manifest.batch} images a request: each with its share of time and bytes"
    Console().print(table)


def _load(path: Path) -> Image:
    """Read an array, or a picture as grey values or colours without transparency; never one as the other."""
    import numpy as np

    with needs("client"):
        from PIL import Image as Pictures

    try:
        if path.suffix == ".npy":
            array: Image = np.load(path, allow_pickle=False)
            return array
        with Pictures.open(path) as picture:
            return picture.convert("L" if picture.mode in ("1", "L", "LA") else "RGB")
    except (OSError, ValueError) as error:
        raise ImageError(f"{path} cannot be read: give a PNG file or an array that numpy.save wrote") from error
