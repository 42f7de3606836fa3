"""What both clients have in common: their arguments, and what they say of themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Generic, NoReturn, TypeVar

from heinfer.formats.manifest import Manifest
from heinfer_client.address import checked_address
from heinfer_client.connections import Connections
from heinfer_client.keyfile import key_file
from heinfer_client.out_of_range import OnOutOfRange, checked_choice
from heinfer_client.progress import Bars
from heinfer_client.session import Session
from heinfer_client.tls import Certificate
from heinfer_client.transfer import DEADLINE, checked_timeout

TransportT = TypeVar("TransportT")


class BaseClient(Generic[TransportT]):
    """A client without its methods, which block or do not; see Client for the arguments."""

    _connect: ClassVar[Callable[..., Connections]]

    def __init__(  # noqa: PLR0913 - what a user may say, each by its name
        self,
        url: str,
        *,
        model: str,
        keys_path: str | Path | None = None,
        keys_passphrase: str | None = None,
        keys_keyring: bool = False,
        manifest: bytes | Path | None = None,
        api_key: str | None = None,
        transport: TransportT | None = None,
        progress: bool = True,
        timeout: float = DEADLINE,
        ca: str | Path | None = None,
        certificate: Certificate | None = None,
        allow_plain_http: bool = False,
        on_out_of_range: OnOutOfRange = "warn",
    ) -> None:
        address = checked_address(
            url,
            api_key=api_key,
            ca=ca,
            certificate=certificate,
            allow_plain_http=allow_plain_http,
            is_network=transport is None,
        )
        self._connections = type(self)._connect(address, checked_timeout(timeout), Bars(progress), transport)
        self._on_out_of_range = checked_choice(on_out_of_range)
        file = key_file(keys_path, keys_passphrase, keys_keyring)
        self._session = Session(self._connections, model, file, manifest)

    @property
    def manifest(self) -> Manifest:
        """What the server says of the model, checked; SettingError before prepare."""
        return self._session.codec.manifest

    @property
    def key_bytes(self) -> int:
        """Bytes of all evaluation keys together as they are sent; SettingError before prepare."""
        return self._session.codec.key_bytes

    @property
    def upload_bytes(self) -> int:
        """Bytes that one request sends, of an image or a batch of them; SettingError before prepare."""
        return self._session.codec.upload_bytes

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError(
            "a client holds a secret key and connections, and is never pickled or copied: make one in each process "
            "(with keys_path=... they share the key)"
        )
