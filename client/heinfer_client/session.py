"""All that a client does but the sending: flows that yield requests, are sent replies and return results.

Both clients run the same flows. Between two requests a flow may compute for seconds (keys, encryption).
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from urllib.parse import quote

from heinfer.ckks.secret import SecretSide
from heinfer.errors import SettingError, UnknownKeysError
from heinfer.formats.manifest import MAX_MANIFEST_BYTES
from heinfer_client.codec import Array, Codec
from heinfer_client.jobs import LONG_SECONDS, evaluate_as_job
from heinfer_client.keyfile import KeyFile, Registration
from heinfer_client.messages import (
    Flow,
    Reply,
    Request,
    ask_until_taken,
    evaluation_seconds,
    expected_seconds,
    require_service,
    require_success,
)
from heinfer_client.prediction import Prediction
from heinfer_client.progress import Bars
from heinfer_client.trust import trusted_manifest
from heinfer_client.upload import send_keys


class Session:
    """One model of one server, one secret key, and the id of its evaluation keys there."""

    def __init__(self, url: str, model: str, keys_path: str | Path | None, bars: Bars, timeout: float) -> None:
        if not isinstance(model, str) or not model:
            raise SettingError("model must be the name of a model that the service has")
        self._url = url
        self._model = model
        self._path = f"/models/{quote(model, safe='')}"
        self._file = _key_file(keys_path) if keys_path else None
        self._bars = bars
        self._timeout = timeout
        self._codec: Codec | None = None
        self._manifest_digest = ""
        self._expected = 0.0
        self._secret: SecretSide | None = None
        self._key_id: str | None = None

    @property
    def codec(self) -> Codec:
        """The model, once `open` has run; SettingError before."""
        if self._codec is None:
            raise SettingError("nothing is known of the model yet: call prepare() or encrypt_and_predict() first")
        return self._codec

    def open(self) -> Flow[None]:
        """Fetch the manifest and check it.

        Raises:
            UnknownModelError, UntrustedManifestError, NewerFormatError.
            ServiceError: when there is no service.
        """
        if self._codec is not None:
            return
        reply = yield from self._ask(Request("GET", f"{self._path}/manifest", limit=MAX_MANIFEST_BYTES))
        require_service(reply, self._url)
        require_success(reply)
        self._codec = Codec(trusted_manifest(reply.body, self._model))
        self._manifest_digest = sha256(reply.body).hexdigest()
        self._expected = expected_seconds(reply)

    def prepare(self) -> Flow[None]:
        """Have a secret key, and its evaluation keys registered; the model must be open.

        Raises:
            SettingError, FormatError: when the file of the keys does not serve.
        """
        if self._secret is None:
            self._secret = self._load_or_make_secret()
        if self._key_id is None and self._file is not None:
            self._key_id = self._file.load_registration(self._url, self._manifest_digest, self._secret)
        if self._key_id is None:
            yield from self._register(self._secret)

    def predict(self, inputs: Sequence[Array]) -> Flow[list[Prediction]]:
        """Encrypt inputs, no more than a batch, have them evaluated and decrypt their scores; needs a prepared session.

        Keys that the server has dropped are registered again, once. Nothing here depends on decrypted values.
        """
        assert self._secret is not None
        started = perf_counter()
        body = self.codec.encrypt(self._secret, inputs)
        client_seconds = perf_counter() - started
        try:
            reply = yield from self._evaluate(body)
        except UnknownKeysError:
            yield from self._register(self._secret)
            reply = yield from self._evaluate(body)
        started = perf_counter()
        answer = self.codec.decrypt(self._secret, reply.body, len(inputs))
        client_seconds += perf_counter() - started
        return [
            Prediction.of(
                own,
                answer.marks,
                label=self.codec.label(own),
                client_seconds=client_seconds,
                server_seconds=evaluation_seconds(reply),
                upload_bytes=len(body),
                download_bytes=len(reply.body),
                images=len(inputs),
            )
            for own in answer.scores
        ]

    def _load_or_make_secret(self) -> SecretSide:
        parameters = self.codec.parameters
        secret = self._file.load(parameters) if self._file else None
        if secret is None:
            secret = SecretSide.generate(parameters)
            if self._file is not None:
                self._file.save(secret)
        return secret

    def _register(self, secret: SecretSide) -> Flow[None]:
        with self._bars.bar("Making evaluation keys", len(self.codec.key_steps)) as advance:
            body = self.codec.evaluation_keys(secret, advance)
        self._key_id = yield from send_keys(self._path, body, self._bars, self._timeout)
        if self._file is not None:
            registration = Registration(
                url=self._url, manifest=self._manifest_digest, secret=secret.fingerprint(), keys=self._key_id
            )
            self._file.save_registration(registration)

    def _ask(self, request: Request) -> Flow[Reply]:
        return ask_until_taken(request, self._timeout)

    def _evaluate(self, body: bytes) -> Flow[Reply]:
        """In one request, or as a job when the service expects it to take long."""
        assert self._key_id is not None
        query, limit = {"model": self._model, "keys": self._key_id}, self.codec.download_bytes
        if self._expected > LONG_SECONDS:
            return (yield from evaluate_as_job(query, body, limit, self._timeout, self._bars))
        reply = yield from self._ask(Request("POST", "/infer", query, body, limit=limit))
        require_success(reply)
        return reply


def _key_file(path: str | Path) -> KeyFile:
    try:
        return KeyFile(Path(path))
    except (TypeError, ValueError):  # ValueError: it ends in no name, as / and . do
        raise SettingError(f"keys_path must be the path of a file, not {path!r}") from None
