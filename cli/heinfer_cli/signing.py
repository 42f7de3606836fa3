"""heinfer sign and heinfer verify: who a bundle is from."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from heinfer.errors import SettingError
from heinfer.formats import bundle as bundles
from heinfer.formats.signature import digest_of_file, signature_path, signed, signer_of
from heinfer_cli.models import bundle_file

_PASSPHRASE = "HEINFER_SIGNING_PASSPHRASE"  # noqa: S105 - the name of a variable

BundleArgument = Annotated[str, typer.Argument(metavar="NAME|BUNDLE", help="The bundle.")]


def sign(
    bundle: BundleArgument,
    key: Annotated[
        Path,
        typer.Option(metavar="FILE", help="Private key: `openssl genpkey -algorithm ed25519 -aes256 -out FILE`."),
    ],
) -> None:
    """Sign a bundle: BUNDLE.sig, beside it, says that whoever has the key stands for it."""
    path = bundle_file(bundle)
    data = bundles.read(path)
    bundles.opened(path, data)  # nobody shall stand for what is no bundle
    bundles.write_whole(signature_path(path), signed(data, key, lambda: _passphrase(key)))
    typer.echo(f"{signature_path(path)} signs {digest_of_file(data)}")


def verify(
    bundle: BundleArgument,
    trust: Annotated[
        list[Path],
        typer.Option(metavar="FILE", help="Public key, `openssl pkey -in KEY -pubout -out FILE`; again for several."),
    ],
) -> None:
    """Check that a bundle is signed by one of these keys; exit code 2 when it is not."""
    path = bundle_file(bundle)
    data = bundles.read(path)
    signer = signer_of(path, data, trust)
    typer.echo(f"{path} is signed by {signer}: {digest_of_file(data)}")


def _passphrase(key: Path) -> str:
    if _PASSPHRASE in os.environ:
        return os.environ[_PASSPHRASE]
    if not sys.stdin.isatty():
        raise SettingError(f"{key} has a passphrase: run this at a terminal, or set {_PASSPHRASE}")
    return str(typer.prompt(f"passphrase of {key}", hide_input=True, err=True))
