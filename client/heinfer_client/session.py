"""All that a client does but the sending: flows that yield requests, are sent replies and return results.

Both clients run the same flows. Between two requests a flow may compute for seconds (keys, encryption).

A call takes one snapshot of the session, a version of the model with keys for it, and is answered wholly by that
version. Only flows that are done alone change what the session holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TypeVar

import numpy as np

from heinfer.ckks.secret import SecretSide
from heinfer.errors import HeinferError, SettingError, UnknownKeysError, UnknownManifestError
from heinfer.formats.bindings import evaluation_binding
from heinfer.formats.manifest import MAX_MANIFEST_BYTES
from heinfer_client.codec import Array, Codec
from heinfer_client.jobs import LONG_SECONDS, evaluate_as_job
from heinfer_client.keyfile import KeyFile
from heinfer_client.keys import Keys
from heinfer_client.messages import (
    Alone,
    Flow,
    Reply,
    Request,
    evaluation_seconds,
    expected_seconds,
    model_path,
    require_service,
    require_success,
)
from heinfer_client.prediction import Prediction
from heinfer_client.progress import Bars
from heinfer_client.replicas import just_registered
from heinfer_client.retries import Patience, Tries, ask
from heinfer_client.trust import pinned_manifest, trusted_manifest
from heinfer_client.versions import Version, model_changed, stale_version

T = TypeVar("T")

Reading = Callable[[Codec], Sequence[Array]]
"""Makes a network's inputs from what the caller gave, as a version of the model wants them."""


@dataclass(frozen=True, eq=False)
class _Ready:
    """What a request needs."""

    version: Version
    secret: SecretSide
    key_id: str


class Session:
    """One model of one server, a secret key, and the id of its evaluation keys there.

    Args:
        manifest: the manifest that the client is pinned to: its bytes, or a file of them; None to follow the service.

    Attributes:
        registrations: what the service is to forget.
    """

    def __init__(
        self,
        url: str,
        model: str,
        file: KeyFile | None,
        bars: Bars,
        patience: Patience,
        manifest: bytes | Path | None = None,
    ) -> None:
        if not isinstance(model, str) or not model:
            raise SettingError("model must be the name of a model that the service has")
        self._url = url
        self._model = model
        self._bars = bars
        self._patience = patience
        self._pinned = None if manifest is None else pinned_manifest(manifest, model)
        self._keys = Keys(url, model, file, bars, patience)
        self.registrations = self._keys.registrations
        self._version: Version | None = None
        self._ready: _Ready | None = None

    @property
    def codec(self) -> Codec:
        """The model, once `open` has run; SettingError before."""
        if self._version is None:
            raise SettingError("nothing is known of the model yet: call prepare() or encrypt_and_predict() first")
        return self._version.codec

    # Flows to begin with

    def prepare(self) -> Flow[None]:
        """Have a manifest, a secret key, and its evaluation keys registered.

        Raises:
            UnknownModelError, UntrustedManifestError, NewerFormatError.
            SettingError, FormatError: when the file of the keys does not serve.
            ServiceError: when there is no service, or it refuses.
        """
        yield from self.predict(lambda _codec: ())

    def predict(self, read: Reading) -> Flow[list[Prediction]]:
        """Read inputs, encrypt them, have them evaluated and decrypt their scores.

        A service that has another version of the model makes the flow begin anew with that, once. Keys that the server
        has dropped are registered again, once a request. Nothing here depends on decrypted values.

        Raises:
            ModelChangedError: when the service has another version again, or the client is pinned to one.
            ImageError: for an image that does not fit the model; then none has been sent.
            WrongAnswerError: when an answer is of another request.
            What prepare raises.
        """

        def work(version: Version) -> Flow[list[Prediction]]:
            inputs = read(version.codec)  # before any key is made
            if not self._is_ready_for(version):
                yield Alone(self._prepare(version))
            return (yield from self._evaluated(version, inputs))

        predictions = yield from self._with_one_version(work)
        yield from self._forget_retired()
        return predictions

    def rotate(self) -> Flow[None]:
        """Make another secret key, have its evaluation keys registered, and go on with them.

        Calls that are under way end with the former ones, whose registration is deleted after that, best effort. The
        file has one of the two secret keys at any time, and the new one from when its evaluation keys are registered.

        Raises:
            What prepare raises; then all is as before.
        """

        def work(version: Version) -> Flow[None]:
            yield Alone(self._rotate(version))

        yield from self._with_one_version(work)
        yield from self._forget_retired()

    def delete_keys(self) -> Flow[None]:
        """Have the service forget the evaluation keys, and remove the file of the secret key.

        Raises:
            ServiceError, SettingError: as Keys.deleted does.
        """
        yield Alone(self._delete())

    def _with_one_version(self, work: Callable[[Version], Flow[T]]) -> Flow[T]:
        is_refreshed = False
        while True:
            if self._version is None:
                yield Alone(self._open())
            version = self._version
            assert version is not None
            try:
                return (yield from work(version))
            except UnknownManifestError as error:
                if self._pinned is not None or is_refreshed:
                    raise model_changed(self._model, self._pinned is not None) from error
                is_refreshed = True
            yield Alone(self._refresh(version))

    def _evaluated(self, version: Version, inputs: Sequence[Array]) -> Flow[list[Prediction]]:
        predictions: list[Prediction] = []
        with ExitStack() as held:
            ready = self._for(version, held)
            for batch in version.codec.in_batches(inputs):
                try:
                    predictions += yield from self._batch(ready, batch)
                except UnknownKeysError:
                    yield Alone(self._register(ready))
                    ready = self._for(version, held)  # perhaps of another secret key: encrypted is anew
                    with just_registered():
                        predictions += yield from self._batch(ready, batch)
        return predictions

    def _batch(self, ready: _Ready, inputs: Sequence[Array]) -> Flow[list[Prediction]]:
        version = ready.version
        started = perf_counter()
        body = version.codec.encrypt(ready.secret, inputs)
        client_seconds = perf_counter() - started
        reply = yield from self._evaluate(ready, body)
        started = perf_counter()
        binding = evaluation_binding(version.codec.binding, ready.key_id, body)
        with np.errstate(all="ignore"):  # whatever decrypted numbers are, they shall not end a call before it is over
            answer = version.codec.decrypt(ready.secret, reply.body, len(inputs), binding)
            client_seconds += perf_counter() - started
            return [
                Prediction.of(
                    own,
                    answer.marks,
                    label=version.codec.label(own),
                    model_version=version.codec.manifest.model_version,
                    manifest=version.digest,
                    client_seconds=client_seconds,
                    server_seconds=evaluation_seconds(reply),
                    upload_bytes=len(body),
                    download_bytes=len(reply.body),
                    images=len(inputs),
                )
                for own in answer.scores
            ]

    def _for(self, version: Version, held: ExitStack) -> _Ready:
        """What requests to a version need, and will find registered for as long as `held` is open.

        Raises:
            UnknownManifestError: when another call has gone on to the next version.
        """
        ready = self._ready
        if ready is None or ready.version is not version:
            raise stale_version()
        held.enter_context(self.registrations.used(ready.key_id))
        return ready

    def _is_ready_for(self, version: Version) -> bool:
        return self._ready is not None and self._ready.version is version

    def _forget_retired(self) -> Flow[None]:
        """Have the service forget keys that nobody uses any more, best effort."""
        for word in self.registrations.due():
            with suppress(HeinferError):
                yield word
                self.registrations.heard(word)

    # Flows that are done alone

    def _open(self) -> Flow[None]:
        if self._version is None:
            self._version = yield from self._fetched()

    def _refresh(self, stale: Version) -> Flow[None]:
        if self._version is stale:
            self._version = yield from self._fetched()

    def _fetched(self) -> Flow[Version]:
        reply = yield from self._ask(Request("GET", f"{model_path(self._model)}/manifest", limit=MAX_MANIFEST_BYTES))
        require_service(reply, self._url)
        require_success(reply)
        served = self._pinned or reply.body  # of a pinned one the answer only says how long an evaluation takes
        codec = Codec(trusted_manifest(served, self._model), served)
        return Version(codec, codec.binding.hex(), expected_seconds(reply))

    def _prepare(self, version: Version) -> Flow[None]:
        """Have a secret key for a version, and its evaluation keys registered."""
        if self._version is not version:
            raise stale_version()
        if self._is_ready_for(version):
            return
        ready, secret = self._ready, self._keys.secret_for(version.codec)
        if ready is not None and ready.secret is secret and ready.version.codec.key_set == version.codec.key_set:
            registered: str | None = ready.key_id
        else:
            registered = self._keys.noted(version.codec, secret)
        if registered is not None:
            self._ready = _Ready(version, secret, registered)
        else:
            yield from self._registered(version, secret)

    def _register(self, stale: _Ready) -> Flow[None]:
        """Register keys that the service does not know (any more), unless another call has done so, or deleted them."""
        if self._ready is stale:
            yield from self._registered(stale.version, stale.secret)
        elif self._ready is None:
            yield from self._prepare(stale.version)

    def _registered(self, version: Version, secret: SecretSide) -> Flow[None]:
        key_id = yield from self._keys.registered(version.codec, version.digest, secret)
        self._ready = _Ready(version, secret, key_id)

    def _rotate(self, version: Version) -> Flow[None]:
        if self._version is not version:
            raise stale_version()
        current = None if self._ready is None else self._ready.key_id
        secret, key_id = yield from self._keys.rotated(version.codec, version.digest, current)
        self._ready = _Ready(version, secret, key_id)

    def _delete(self) -> Flow[None]:
        yield from self._keys.deleted(None if self._ready is None else self._ready.key_id)
        self._ready = None

    # Requests

    def _ask(self, request: Request) -> Flow[Reply]:
        return ask(request, Tries(self._patience))

    def _evaluate(self, ready: _Ready, body: bytes) -> Flow[Reply]:
        """In one request, or as a job when the service expects it to take long."""
        query = {"model": self._model, "manifest": ready.version.digest, "keys": ready.key_id}
        limit = ready.version.codec.download_bytes
        if ready.version.expected > LONG_SECONDS:
            return (yield from evaluate_as_job(query, body, limit, self._patience, self._bars))
        reply = yield from self._ask(Request("POST", "/infer", query, body, limit=limit))
        require_success(reply)
        return reply
