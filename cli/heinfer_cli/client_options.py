"""Options of all verbs that speak to a service, or open a file of a secret key."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from heinfer.errors import SettingError

_VARIABLE = "HEINFER_KEYS_PASSPHRASE"

_MAX_PASSPHRASE_FILE = 1 << 16

Url = Annotated[str, typer.Argument(help="Of the service, such as http://127.0.0.1:8000")]
ApiKey = Annotated[
    str | None, typer.Option(envvar="HEINFER_API_KEY", help="If the service needs one.", show_envvar=True)
]
AllowPlainHttp = Annotated[
    bool, typer.Option("--allow-plain-http", help="Send the API key over plain http to another machine as well.")
]
Ca = Annotated[Path | None, typer.Option(help="PEM file of the authorities to trust, such as your own.")]
Certificate = Annotated[
    Path | None, typer.Option(help="PEM file of your certificate and its key, if the service asks for one.")
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help=f"That holds the passphrase of the keys; else {_VARIABLE} does, or the terminal is asked.",
    ),
]
UseKeyring = Annotated[bool, typer.Option("--keyring", help="The keys are encrypted by the system's keyring.")]


def passphrase_of(keys: Path | None, passphrase_file: Path | None, keyring: bool) -> str | None:
    """What a user says is the passphrase of a file of keys, asked for only where that has one; None without one.

    Raises:
        SettingError: when the passphrase's file cannot be read, or is none.
        FormatError: when the file of the keys is none.
    """
    if passphrase_file is not None:
        return _read(passphrase_file)
    if keyring or keys is None:
        return None
    if _VARIABLE in os.environ:
        return _of_environment()
    return _asked(f"Passphrase of {keys}") if _has_passphrase(keys) else None


def new_passphrase(keys: Path, passphrase_file: Path | None) -> str:
    """The passphrase to protect a file by, asked for twice; SettingError where there is none and no terminal."""
    if passphrase_file is not None:
        return _read(passphrase_file)
    if _VARIABLE in os.environ:
        return _of_environment()
    given = _asked(f"New passphrase of {keys}", confirmation_prompt=True)
    if given is None:
        raise SettingError(f"give a passphrase: --passphrase-file FILE, {_VARIABLE}, or a terminal; or --keyring")
    return given


def _of_environment() -> str:
    """That of the environment, which counts when it is empty, too: a secret that is missing must not go unnoticed."""
    given = os.environ[_VARIABLE]
    if not given:
        raise SettingError(f"{_VARIABLE} is empty: set it to the passphrase, or unset it for a key without one")
    return given


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_PASSPHRASE_FILE).decode("utf-8-sig")  # Windows' editors begin with a mark
    except OSError as error:
        raise SettingError(f"{path}: the passphrase cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise SettingError(f"{path} holds no passphrase: one line of UTF-8 is expected") from None
    return text.removesuffix("\n").removesuffix("\r")


def _has_passphrase(keys: Path) -> bool:
    from heinfer.ckks import secret_file
    from heinfer.ckks.protection import Kind

    try:
        return secret_file.read(keys).seal.kind is Kind.PASSPHRASE
    except OSError:  # told by who opens it
        return False


def _asked(prompt: str, *, confirmation_prompt: bool = False) -> str | None:
    if not sys.stdin.isatty():
        return None
    answer: str = typer.prompt(prompt, hide_input=True, confirmation_prompt=confirmation_prompt, err=True)
    return answer
