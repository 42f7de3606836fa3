"""heinfer keys: the files of secret keys that the client keeps, and what is registered of them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from heinfer.errors import ServiceError, SettingError
from heinfer.extras import needs
from heinfer_cli.client_options import (
    AllowPlainHttp,
    ApiKey,
    Ca,
    Certificate,
    PassphraseFile,
    Url,
    UseKeyring,
    new_passphrase,
    passphrase_of,
)

if TYPE_CHECKING:
    from heinfer.ckks.secret_file import SecretFile
    from heinfer_client.keyfile import Registration

keys = typer.Typer(
    no_args_is_help=True,
    help="Files of secret keys, such as `heinfer predict --keys FILE` makes: none of these commands shows the key.",
)

File = Annotated[Path, typer.Argument(metavar="FILE", help="Of the secret key.", resolve_path=True)]

_DAY = 86400


@keys.command("show")
def show(
    file: File,
    with_id: Annotated[
        bool,
        typer.Option("--id", help="Show the id of the evaluation keys, too: whoever knows it can use and delete them."),
    ] = False,
) -> None:
    """Show what a file of keys is for, how old they are, how they are protected and where they are registered."""
    found, noted = _read(file), _noted(file)
    parameters = found.parameters
    table = Table(show_header=False, box=None)
    table.add_row("parameters", f"N = {parameters.ring_degree}, {parameters.log_qp:.1f} bits of modulus")
    table.add_row("made", _age(found.created))
    table.add_row("protected by", _PROTECTED_BY[int(found.seal.kind)])
    if noted is None:
        table.add_row("registered", "nowhere, or it is not known where")
    else:
        table.add_row("registered at", escape(noted.url))
        table.add_row("for model", escape(noted.model) or "not known")
        table.add_row("key set", noted.key_set)
        if with_id:
            table.add_row("id", noted.keys)
    Console().print(table, highlight=False, soft_wrap=True)


@keys.command("protect")
def protect(file: File, passphrase_file: PassphraseFile = None, keyring: UseKeyring = False) -> None:
    """Encrypt the secret key in a file that has it in clear, by a passphrase or the system's keyring."""
    from heinfer.ckks import secret_file
    from heinfer.ckks.protection import Keyring, Kind, Passphrase

    if keyring and passphrase_file is not None:
        raise SettingError("--keyring or --passphrase-file: a file is protected by one of them")
    if _read(file).seal.kind is not Kind.CLEAR:
        secret_file.protect(file, None)  # which says so, before a passphrase is asked for
    protection = Keyring() if keyring else Passphrase(new_passphrase(file, passphrase_file))
    try:
        secret_file.protect(file, protection)
    except OSError as error:
        raise SettingError(f"{file} cannot be replaced: {error.strerror}") from error
    typer.echo(f"{file} is protected; copies of it that were made before are not")


@keys.command("rotate")
def rotate(  # noqa: PLR0913, PLR0917 - one option for each choice
    url: Url,
    file: File,
    model: Annotated[
        str | None, typer.Option(help="Name of a model there.", show_default="that of the registration")
    ] = None,
    api_key: ApiKey = None,
    allow_plain_http: AllowPlainHttp = False,
    ca: Ca = None,
    certificate: Certificate = None,
    passphrase_file: PassphraseFile = None,
    keyring: UseKeyring = False,
) -> None:
    """Make a new secret key, register it, put it in the place of the one in FILE, and have that one's forgotten."""
    _read(file)
    noted = _noted(file)
    name = model or (noted.model if noted else "")
    if not name:
        raise SettingError(f"for which model {file} was made is not known: give --model NAME")
    client = _client(
        url,
        name,
        file,
        keys_passphrase=passphrase_of(file, passphrase_file, keyring),
        keys_keyring=keyring,
        api_key=api_key,
        allow_plain_http=allow_plain_http,
        ca=ca,
        certificate=certificate,
    )
    with client:
        client.rotate()
    former = (
        "where the former one's evaluation keys are registered, if anywhere, is not known"
        if noted is None
        else "the service was asked to forget the former one's, once"
    )
    typer.echo(f"{file} holds a new secret key, which is registered; {former}")


@keys.command("delete")
def delete(
    url: Url,
    file: File,
    api_key: ApiKey = None,
    allow_plain_http: AllowPlainHttp = False,
    ca: Ca = None,
    certificate: Certificate = None,
) -> None:
    """Have the service forget the evaluation keys, then remove FILE and what is beside it."""
    _read(file)
    noted = _noted(file)
    client = _client(
        url,
        "of no matter" if noted is None else noted.model or "of no matter",
        file,
        api_key=api_key,
        allow_plain_http=allow_plain_http,
        ca=ca,
        certificate=certificate,
    )
    with client:
        try:
            client.delete_keys()
        except ServiceError as error:
            left = f"nothing is deleted: {file} is still here, and its evaluation keys are registered at the service"
            error.args = (f"{error}; {left}, until nobody has used them for long: try again, or remove the file",)
            raise
    if noted is None:
        typer.echo(f"{file} is removed; where its evaluation keys are registered, if anywhere, is not known")
    else:
        typer.echo(f"the service has forgotten the evaluation keys, and {file} is removed")


_PROTECTED_BY = ("nothing but its mode: `heinfer keys protect` encrypts it", "a passphrase", "the system's keyring")


def _client(url: str, model: str, file: Path, **others: Any) -> Any:
    with needs("client"):
        from heinfer_client import Client

    return Client(url, model=model, keys_path=file, **others)


def _read(file: Path) -> SecretFile:
    """The file as it is kept; SettingError when there is none."""
    from heinfer.ckks import secret_file

    try:
        return secret_file.read(file)
    except OSError as error:
        raise SettingError(f"the keys at {file} cannot be read: {error.strerror}") from error


def _noted(file: Path) -> Registration | None:
    with needs("client"):
        from heinfer_client.keyfile import KeyFile

    return KeyFile(file).record()


def _age(created: int) -> str:
    if not created:
        return "at a time that the file does not say: a former heinfer wrote it"
    made = datetime.fromtimestamp(created, UTC)
    days = int((datetime.now(UTC) - made).total_seconds() // _DAY)
    return f"{made.isoformat(timespec='seconds')}, {days} days ago"
