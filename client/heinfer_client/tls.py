"""TLS: whose certificates are trusted, and with which one a client shows who it is."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, TypeAlias

import httpx

from heinfer.errors import SettingError

PathLike: TypeAlias = str | Path

Certificate: TypeAlias = PathLike | tuple[PathLike, PathLike]
"""A PEM file of a certificate and its key, or one of each."""


def tls_context(ca: PathLike | None, certificate: Certificate | None) -> ssl.SSLContext:
    """What is trusted and shown.

    Args:
        ca: PEM file of the authorities to trust, and no others; by default those of SSL_CERT_FILE or SSL_CERT_DIR, else
            the common ones.
        certificate: of the client, where the service asks for one.

    Raises:
        SettingError: when a file does not serve.
    """
    if ca is None:
        with _file_errors("SSL_CERT_FILE or SSL_CERT_DIR", "name a PEM file, or a folder, of certificates"):
            context = httpx.create_ssl_context()
    else:
        with _file_errors(f"ca={_path(ca, 'ca')}", "give a PEM file of the certificates to trust"):
            context = ssl.create_default_context(cafile=_path(ca, "ca"))
    if certificate is not None:
        several = certificate if isinstance(certificate, tuple) else (certificate,)
        if not 1 <= len(several) <= 2:
            raise SettingError("certificate must be the path of a PEM file, or those of a certificate and of its key")
        paths = [_path(path, "certificate") for path in several]
        with _file_errors(
            f"certificate={', '.join(paths)}", "give a PEM file of a certificate and its key, or (certificate, key)"
        ):
            context.load_cert_chain(paths[0], paths[-1], password=_no_passphrase)
    return context


def _path(path: PathLike, name: str) -> str:
    try:
        return os.fsdecode(path)
    except TypeError:
        raise SettingError(f"{name} must be the path of a file, not {path!r}") from None


def _no_passphrase() -> NoReturn:
    """Instead of OpenSSL's question on the terminal."""
    raise SettingError("the key of the client's certificate has a passphrase: give one that has none")


@contextmanager
def _file_errors(what: str, way_out: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # ssl.SSLError is one
        cause = (error.reason if isinstance(error, ssl.SSLError) else error.strerror) or "it is no such file"
    except ValueError as error:  # a zero byte in the path
        cause = str(error)
    else:
        return
    raise SettingError(f"{what} does not serve ({cause}): {way_out}")
