"""A client's secret key, in memory and in its file, and how its evaluation keys get to the service."""

from __future__ import annotations

from heinfer.ckks.secret import SecretSide
from heinfer_client.codec import Codec
from heinfer_client.keyfile import KeyFile, Registration
from heinfer_client.messages import Flow
from heinfer_client.progress import Bars
from heinfer_client.registrations import Registrations
from heinfer_client.retries import Patience
from heinfer_client.upload import send_keys


class Keys:
    """The secret key of one client, for one model of one server; only flows that are done alone change it.

    Args:
        url: of the server.
        path: of the model there.
        file: that keeps the secret key; None for memory only.

    Attributes:
        secret: the secret key; None as long as none was needed.
        registrations: what the service is to forget.
    """

    def __init__(self, url: str, path: str, file: KeyFile | None, bars: Bars, patience: Patience) -> None:
        self._url = url
        self._path = path
        self._file = file
        self._bars = bars
        self._patience = patience
        self.secret: SecretSide | None = None
        self.registrations = Registrations()

    def secret_for(self, codec: Codec) -> SecretSide:
        """The secret key for a model's parameters, from the file or made.

        Raises:
            SettingError, FormatError: when the file does not serve.
        """
        if self.secret is None or self.secret.parameters != codec.parameters:
            secret = self._file.load(codec.parameters) if self._file else None
            if secret is None:
                secret = SecretSide.generate(codec.parameters)
                if self._file is not None:
                    self._file.save(secret)
            self.secret = secret
        return self.secret

    def noted(self, codec: Codec, secret: SecretSide) -> str | None:
        """Id of evaluation keys that were registered earlier, by what is beside the file."""
        known = None if self._file is None else self._file.registration(self._url, secret)
        return known.keys if known is not None and known.key_set == codec.key_set else None

    def registered(self, codec: Codec, digest: str, secret: SecretSide) -> Flow[str]:
        """Have evaluation keys made and registered; returns their id.

        Args:
            digest: of the manifest.

        Raises:
            ServiceError: when there is no service, or it refuses.
        """
        key_id = yield from self._sent(codec, digest, secret)
        self._note(codec, secret, key_id)
        return key_id

    def rotated(self, codec: Codec, digest: str, current: str | None) -> Flow[tuple[SecretSide, str]]:
        """Make another secret key, have its evaluation keys registered, and put it in the place of this one.

        Args:
            current: id of this one's evaluation keys, if they are registered.

        Returns:
            The new secret key, and the id of its evaluation keys.

        Raises:
            ServiceError, SettingError, FormatError: then all is as before, in memory and in the file.
        """
        former = self._former(codec, current)
        secret = SecretSide.generate(codec.parameters)
        key_id = yield from self._sent(codec, digest, secret)
        if self._file is not None:
            try:
                self._file.save(secret)
            except BaseException:
                self.registrations.own(key_id)  # nobody will ever use them
                raise
        self.secret = secret
        if former is not None:
            self.registrations.retire(former)
        self._note(codec, secret, key_id)
        return secret, key_id

    def _former(self, codec: Codec, current: str | None) -> str | None:
        """Id of the evaluation keys that a rotation makes useless; a parent goes on with those that it registered."""
        if self._file is None:
            return current if current is not None and self.registrations.owns(current) else None
        if self.secret is None:  # what does not open shall not be overwritten
            self.secret = self._file.load(codec.parameters)
        known = self._file.registration(self._url, self.secret) if current is None and self.secret else None
        return current if known is None else known.keys

    def _sent(self, codec: Codec, digest: str, secret: SecretSide) -> Flow[str]:
        with self._bars.bar("Making evaluation keys", len(codec.key_steps)) as advance:
            body = codec.evaluation_keys(secret, advance)
        sent = yield from send_keys(self._path, digest, body, self._bars, self._patience)
        if self._file is None and sent.is_own:
            self.registrations.own(sent.key_id)
        return sent.key_id

    def _note(self, codec: Codec, secret: SecretSide, key_id: str) -> None:
        if self._file is not None:
            found = Registration(url=self._url, key_set=codec.key_set, secret=secret.fingerprint(), keys=key_id)
            self._file.save_registration(found)
