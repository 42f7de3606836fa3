"""heinfer confirm-clock and heinfer backup: what an operator does with the folder of a service's keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from heinfer.errors import SettingError
from heinfer.extras import needs

KeyFolder = Annotated[
    Path,
    typer.Option(
        "--key-folder", metavar="FOLDER", envvar="HEINFER_SERVER_KEY_FOLDER", help="Where the service keeps keys."
    ),
]


def confirm_clock(key_folder: KeyFolder) -> None:
    """Say that this machine's clock is right, to a service that lets no keys expire because it has jumped."""
    with needs("server"):
        from heinfer_server.operator.stored import confirm_clock as confirm

    confirm(key_folder)
    typer.echo("confirmed: a service that runs lets keys expire again within half a minute, another when it starts")


def backup(
    target: Annotated[Path, typer.Argument(metavar="FILE.tar", help="To be made; nothing may be there.")],
    key_folder: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", envvar="HEINFER_SERVER_KEY_FOLDER", help="Where the service keeps keys."),
    ] = None,
    tenants: Annotated[
        Path | None, typer.Option(metavar="FILE", envvar="HEINFER_SERVER_TENANTS", help="File of the tenants.")
    ] = None,
) -> None:
    """Save the evaluation keys and the file of tenants of a service, which may run meanwhile."""
    with needs("server"):
        from heinfer_server.operator.stored import back_up

    if key_folder is None and tenants is None:
        raise SettingError("say what to save: --key-folder FOLDER, --tenants FILE, or both")
    typer.echo(f"{target}: {back_up(key_folder, tenants, target):,} bytes, for whoever may read the keys alone")
