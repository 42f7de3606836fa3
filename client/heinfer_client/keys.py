"""A client's secret key, in memory and in its file, and how its evaluation keys get to the service."""

from __future__ import annotations

from contextlib import suppress

from heinfer.ckks.secret import SecretSide
from heinfer.errors import SettingError, UnknownKeysError
from heinfer_client.codec import Codec
from heinfer_client.keyfile import KeyFile, Registration
from heinfer_client.messages import Flow, Request, model_path, require_success
from heinfer_client.progress import Bars
from heinfer_client.registrations import Registrations
from heinfer_client.retries import Patience, Tries, ask
from heinfer_client.upload import send_keys


class Keys:
    """The secret key of one client, for one model of one server; only flows that are done alone change it.

    Args:
        url: of the server.
        model: its name there.
        file: that keeps the secret key; None for memory only.

    Attributes:
        secret: the secret key; None as long as none was needed.
        registrations: what the service is to forget.
    """

    def __init__(self, url: str, model: str, file: KeyFile | None, bars: Bars, patience: Patience) -> None:
        self._url = url
        self._model = model
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

    def deleted(self, current: str | None) -> Flow[None]:
        """Have the service forget the evaluation keys, then remove the file, and go on as if there had been none.

        Args:
            current: id of the evaluation keys, if they are registered.

        Raises:
            ServiceError: when the service cannot be reached, or refuses; then the file is as before.
            SettingError: when the keys in the file are registered elsewhere, or the file cannot be removed.
        """
        noted = None if self._file is None else self._file.record()
        if noted is not None and noted.url != self._url:
            raise SettingError(f"these keys are registered at {noted.url}, not at {self._url}: delete them there")
        for key_id in {current, None if noted is None else noted.keys} - {None}:
            request = Request("DELETE", f"/keys/{key_id}")
            reply = yield from ask(request, Tries(self._patience))
            with suppress(UnknownKeysError):  # they are gone
                require_success(reply)
            self.registrations.heard(request)
        if self._file is not None and self._file.exists:
            self._file.remove()
        self.secret = None

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
        sent = yield from send_keys(model_path(self._model), digest, body, self._bars, self._patience)
        if self._file is None and sent.is_own:
            self.registrations.own(sent.key_id)
        return sent.key_id

    def _note(self, codec: Codec, secret: SecretSide, key_id: str) -> None:
        if self._file is not None:
            found = Registration(
                url=self._url, model=self._model, key_set=codec.key_set, secret=secret.fingerprint(), keys=key_id
            )
            if not self._file.save_registration(found):
                self.registrations.own(key_id)  # nobody will find them again
