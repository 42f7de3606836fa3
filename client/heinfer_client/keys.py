"""A client's secret key, in memory and in its file, and how its evaluation keys get to the service."""

from __future__ import annotations

from contextlib import suppress

from heinfer.ckks.secret import SecretSide
from heinfer.errors import SettingError, UnknownKeysError
from heinfer_client.codec import Codec
from heinfer_client.connections import Connections
from heinfer_client.keyfile import KeyFile, Registration
from heinfer_client.messages import Request, model_path, require_success
from heinfer_client.retries import Tries
from heinfer_client.upload import send_keys


class Keys:
    """The secret key of one client, for one model of one server; only flows that are done alone change it.

    Args:
        model: its name at the server.
        file: that keeps the secret key; None for memory only.

    Attributes:
        secret: the secret key; None as long as none was needed.
    """

    def __init__(self, connections: Connections, model: str, file: KeyFile | None) -> None:
        self._connections = connections
        self._registrations = connections.registrations
        self._model = model
        self._file = file
        self.secret: SecretSide | None = None

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
        known = None if self._file is None else self._file.registration(self._connections.url, secret)
        return known.keys if known is not None and known.key_set == codec.key_set else None

    async def sent(self, codec: Codec, secret: SecretSide) -> str:
        """Have evaluation keys made and registered; returns their id.

        Raises:
            ServiceError: when there is no service, or it refuses.
        """
        body = await self._connections.computed(self._made, codec, secret)
        sent = await send_keys(self._connections, model_path(self._model), codec.digest, body)
        if self._file is None and sent.is_own:
            self._registrations.own(sent.key_id)
        return sent.key_id

    def note(self, codec: Codec, secret: SecretSide, key_id: str) -> None:
        """Write beside the file what has been registered; where that cannot be, the client forgets it in the end."""
        if self._file is not None:
            found = Registration(
                url=self._connections.url,
                model=self._model,
                key_set=codec.key_set,
                secret=secret.fingerprint(),
                keys=key_id,
            )
            if not self._file.save_registration(found):
                self._registrations.own(key_id)  # nobody will find them again

    def replace(self, codec: Codec, secret: SecretSide, key_id: str, former: str | None) -> None:
        """Put another secret key, whose evaluation keys are registered, in the place of this one, and retire `former`.

        Raises:
            SettingError: when the file cannot be written; then all is as before, in memory and in the file.
        """
        if self._file is not None:
            try:
                self._file.save(secret)
            except BaseException:
                self._registrations.own(key_id)  # nobody will ever use them
                raise
        self.secret = secret
        if former is not None:
            self._registrations.retire(former)
        self.note(codec, secret, key_id)

    def former(self, codec: Codec, current: str | None) -> str | None:
        """Id of the evaluation keys that a rotation makes useless; a parent goes on with those that it registered.

        Args:
            current: id of this secret key's evaluation keys, if they are registered.

        Raises:
            SettingError, FormatError: when the file does not serve.
        """
        if self._file is None:
            return current if current is not None and self._registrations.owns(current) else None
        if self.secret is None:  # what does not open shall not be overwritten
            self.secret = self._file.load(codec.parameters)
        known = self._file.registration(self._connections.url, self.secret) if current is None and self.secret else None
        return current if known is None else known.keys

    async def forgotten(self, current: str | None) -> None:
        """Have the service forget the evaluation keys, also those that are noted beside the file.

        Args:
            current: id of the evaluation keys, if they are registered.

        Raises:
            ServiceError: when the service cannot be reached, or refuses.
            SettingError: when the keys in the file are registered elsewhere.
        """
        noted = None if self._file is None else await self._connections.computed(self._file.record)
        if noted is not None and noted.url != self._connections.url:
            here = self._connections.url
            raise SettingError(f"these keys are registered at {noted.url}, not at {here}: delete them there")
        for key_id in {current, None if noted is None else noted.keys} - {None}:
            request = Request("DELETE", f"/keys/{key_id}")
            reply = await Tries(self._connections).ask(request)
            with suppress(UnknownKeysError):  # they are gone
                require_success(reply)
            self._registrations.heard(request)

    def remove(self) -> None:
        """Remove the file, and go on as if there had been none; SettingError when it cannot be removed."""
        if self._file is not None and self._file.exists:
            self._file.remove()
        self.secret = None

    def _made(self, codec: Codec, secret: SecretSide) -> bytes:
        with self._connections.bars.bar("Making evaluation keys", len(codec.manifest.keys.levels)) as advance:
            return codec.evaluation_keys(secret, advance)
