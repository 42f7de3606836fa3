"""Keys on disk: the secret key, and beside it where its evaluation keys are registered."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from heinfer.ckks import secret_file
from heinfer.ckks.parameters import Parameters
from heinfer.ckks.protection import Keyring, Passphrase, Protection
from heinfer.ckks.secret import SecretSide
from heinfer.errors import SettingError
from heinfer.formats.files import read_regular

_MAX_RECORD_BYTES = 1 << 16


Printable = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
"""Text that may go to a terminal."""


class Registration(BaseModel):
    """Under which id which server holds the evaluation keys of which secret key for which key set.

    Attributes:
        model: for which they were registered; empty where a former heinfer wrote it.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    url: Printable
    key_set: Printable
    secret: Printable
    model: Printable = ""
    keys: str = Field(pattern=r"^[A-Za-z0-9_-]{16,64}$")


class KeyFile:
    """The files of one secret key, both of mode 0600: `path` itself, and `path` + ".registration".

    Reading and writing the key raise SettingError when the place does not allow it. The registration only saves sending
    keys again: where it cannot be written, as in a mounted secret, there is a warning.
    """

    def __init__(self, path: Path, protection: Protection = None) -> None:
        self._path = path.with_name(path.name).resolve()  # with_name refuses what ends in no name
        self._protection = protection
        self._record = self._path.with_name(self._path.name + ".registration")

    def load(self, parameters: Parameters) -> SecretSide | None:
        """The secret key; None when there is no file.

        Raises:
            SettingError: when it was made for other parameters: a key is never overwritten.
            KeyProtectionError: when it is not protected as is said, or does not open.
            FormatError: when others can read the file, or it is damaged.
        """
        if not self.exists:
            return None
        with self._place_errors("the keys at {} cannot be read"):
            secret = SecretSide.load(self._path, self._protection)
        if secret.parameters != parameters:
            raise SettingError(
                f"{self._path} holds keys for other CKKS parameters than this model's: give another keys_path"
            )
        return secret

    def save(self, secret: SecretSide) -> None:
        """Write the secret key."""
        with self._place_errors("keys cannot be kept at {}"):
            secret.save(self._path, self._protection)

    @property
    def exists(self) -> bool:
        """Whether there is a secret key."""
        with self._place_errors("the keys at {} cannot be read"):
            return self._path.exists()

    def registration(self, url: str, secret: SecretSide) -> Registration | None:
        """Where the evaluation keys of that very secret key are registered, if on that server.

        With another secret key, its file replaced or made anew, the scores would be wrong without any error.
        """
        found = self.record()
        known = found is not None and (found.url, found.secret) == (url, secret.fingerprint())
        return found if known else None

    def record(self) -> Registration | None:
        """What is written of a registration, of whichever secret key."""
        try:
            return Registration.model_validate_json(read_regular(self._record, _MAX_RECORD_BYTES))
        except (OSError, ValidationError):  # nothing is lost: they are registered again
            return None

    def save_registration(self, registration: Registration) -> bool:
        """Write where the keys are registered; the id lets whoever knows it use and delete them.

        A RuntimeWarning says that it cannot be written, and False.
        """
        try:
            secret_file.put_in_place(self._record, registration.model_dump_json().encode())
        except OSError as error:
            warnings.warn(
                f"{self._record} cannot be written ({error.strerror}): evaluation keys will be sent again next time",
                RuntimeWarning,
                stacklevel=2,
            )
            return False
        return True

    def remove(self) -> None:
        """Remove both files; what the keyring holds for the first as well. SettingError when the place forbids it."""
        with self._place_errors("the keys at {} cannot be removed"):
            secret_file.remove(self._path)
            self._record.unlink(missing_ok=True)

    @contextmanager
    def _place_errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SettingError(f"{what.format(self._path)}: {error.strerror}") from error


def key_file(path: str | Path | None, passphrase: str | None, keyring: bool) -> KeyFile | None:
    """The file that a user names, and how it is protected; SettingError when that makes no sense."""
    if passphrase is not None and keyring:
        raise SettingError("a key file is protected by a passphrase or by the keyring, not by both")
    if not path:
        if passphrase is not None or keyring:
            raise SettingError("keys_passphrase and keys_keyring protect a file: give keys_path, too")
        return None
    protection = Passphrase(passphrase) if passphrase is not None else Keyring() if keyring else None
    try:
        return KeyFile(Path(path), protection)
    except (TypeError, ValueError):  # ValueError: it ends in no name, as / and . do
        raise SettingError(f"keys_path must be the path of a file, not {path!r}") from None
