"""All that a client does but the sending: flows, which await connections; those of both clients are the same.

A call takes one snapshot of the session, a version of the model with keys for it, and is answered wholly by that
version. Only flows that are done alone change what the session holds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
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
from heinfer_client.connections import Connections
from heinfer_client.jobs import LONG_SECONDS, evaluate_as_job
from heinfer_client.keyfile import KeyFile
from heinfer_client.keys import Keys
from heinfer_client.messages import (
    Reply,
    Request,
    evaluation_seconds,
    expected_seconds,
    model_path,
    require_service,
    require_success,
)
from heinfer_client.prediction import Prediction
from heinfer_client.replicas import just_registered
from heinfer_client.retries import Tries
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
    """

    def __init__(
        self, connections: Connections, model: str, file: KeyFile | None, manifest: bytes | Path | None = None
    ) -> None:
        if not isinstance(model, str) or not model:
            raise SettingError("model must be the name of a model that the service has")
        self._connections = connections
        self._model = model
        self._pinned = None if manifest is None else pinned_manifest(manifest, model)
        self._keys = Keys(connections, model, file)
        self._version: Version | None = None
        self._ready: _Ready | None = None

    @property
    def codec(self) -> Codec:
        """The model, once `open` has run; SettingError before."""
        if self._version is None:
            raise SettingError("nothing is known of the model yet: call prepare() or encrypt_and_predict() first")
        return self._version.codec

    # Flows to begin with

    async def prepare(self) -> None:
        """Have a manifest, a secret key, and its evaluation keys registered.

        Raises:
            UnknownModelError, UntrustedManifestError, NewerFormatError.
            SettingError, FormatError: when the file of the keys does not serve.
            ServiceError: when there is no service, or it refuses.
        """
        await self.predict(lambda _codec: ())

    async def predict(self, read: Reading) -> list[Prediction]:
        """Read inputs, encrypt them, have them evaluated and decrypt their scores.

        A service that has another version of the model makes the flow begin anew with that, once. Keys that the server
        has dropped are registered again, once a request. Nothing here depends on decrypted values.

        Raises:
            ModelChangedError: when the service has another version again, or the client is pinned to one.
            ImageError: for an image that does not fit the model; then none has been sent.
            WrongAnswerError: when an answer is of another request.
            What prepare raises.
        """

        async def work(version: Version) -> list[Prediction]:
            inputs = await self._connections.computed(read, version.codec)  # before any key is made
            if not self._is_ready_for(version):
                await self._connections.alone(self._prepare, version)
            return await self._evaluated(version, inputs)

        predictions = await self._with_one_version(work)
        await self._forget_retired()
        return predictions

    async def rotate(self) -> None:
        """Make another secret key, have its evaluation keys registered, and go on with them.

        Calls that are under way end with the former ones, whose registration is deleted after that, best effort. The
        file has one of the two secret keys at any time, and the new one from when its evaluation keys are registered.

        Raises:
            What prepare raises; then all is as before.
        """

        async def work(version: Version) -> None:
            await self._connections.alone(self._rotate, version)

        await self._with_one_version(work)
        await self._forget_retired()

    async def delete_keys(self) -> None:
        """Have the service forget the evaluation keys, and remove the file of the secret key.

        Raises:
            ServiceError: as Keys.forgotten does; then the file is as before.
            SettingError: when the keys are registered elsewhere, or the file cannot be removed.
        """
        await self._connections.alone(self._delete)

    async def _with_one_version(self, work: Callable[[Version], Awaitable[T]]) -> T:
        is_refreshed = False
        while True:
            if self._version is None:
                await self._connections.alone(self._fetch, None)
            version = self._version
            assert version is not None
            try:
                return await work(version)
            except UnknownManifestError as error:
                if self._pinned is not None or is_refreshed:
                    raise model_changed(self._model, self._pinned is not None) from error
                is_refreshed = True
            await self._connections.alone(self._fetch, version)

    async def _evaluated(self, version: Version, inputs: Sequence[Array]) -> list[Prediction]:
        predictions: list[Prediction] = []
        with ExitStack() as held:
            ready = self._for(version, held)
            for batch in version.codec.in_batches(inputs):
                try:
                    predictions += await self._batch(ready, batch)
                except UnknownKeysError:
                    await self._connections.alone(self._register, ready)
                    ready = self._for(version, held)  # perhaps of another secret key: encrypted is anew
                    with just_registered():
                        predictions += await self._batch(ready, batch)
        return predictions

    async def _batch(self, ready: _Ready, inputs: Sequence[Array]) -> list[Prediction]:
        body, client_seconds = await self._connections.computed(_encrypted, ready, inputs)
        reply = await self._evaluate(ready, body)
        return await self._connections.computed(_predictions, ready, len(inputs), body, reply, client_seconds)

    def _for(self, version: Version, held: ExitStack) -> _Ready:
        """What requests to a version need, and will find registered for as long as `held` is open.

        Raises:
            UnknownManifestError: when another call has gone on to the next version.
        """
        ready = self._ready
        if ready is None or ready.version is not version:
            raise stale_version()
        held.enter_context(self._connections.registrations.used(ready.key_id))
        return ready

    def _is_ready_for(self, version: Version) -> bool:
        return self._ready is not None and self._ready.version is version

    async def _forget_retired(self) -> None:
        """Have the service forget keys that nobody uses any more, best effort."""
        for word in self._connections.registrations.due():
            with suppress(HeinferError):
                await self._connections.send(word)
                self._connections.registrations.heard(word)

    # Flows that are done alone, and what they change: computed, as that goes on to its end when a task is cancelled

    async def _fetch(self, stale: Version | None) -> None:
        """Have the version that the service has now in the place of another, unless another call has done so."""
        if self._version is stale:
            request = Request("GET", f"{model_path(self._model)}/manifest", limit=MAX_MANIFEST_BYTES)
            reply = await Tries(self._connections).ask(request)
            self._version = await self._connections.computed(self._read, reply)

    def _read(self, reply: Reply) -> Version:
        require_service(reply, self._connections.url)
        require_success(reply)
        served = self._pinned or reply.body  # of a pinned one the answer only says how long an evaluation takes
        codec = Codec(trusted_manifest(served, self._model), served)
        return Version(codec, codec.binding.hex(), expected_seconds(reply))

    async def _prepare(self, version: Version) -> None:
        """Have a secret key for a version, and its evaluation keys registered."""
        if self._version is not version:
            raise stale_version()
        if self._is_ready_for(version):
            return
        secret = await self._connections.computed(self._recall, version)
        if not self._is_ready_for(version):
            await self._registered(version, secret)

    def _recall(self, version: Version) -> SecretSide:
        """The secret key for a version, which is ready if its evaluation keys are known to be registered."""
        ready, secret = self._ready, self._keys.secret_for(version.codec)
        if ready is not None and ready.secret is secret and ready.version.codec.key_set == version.codec.key_set:
            registered: str | None = ready.key_id
        else:
            registered = self._keys.noted(version.codec, secret)
        if registered is not None:
            self._ready = _Ready(version, secret, registered)
        return secret

    async def _register(self, stale: _Ready) -> None:
        """Register keys that the service does not know (any more), unless another call has done so, or deleted them."""
        if self._ready is stale:
            await self._registered(stale.version, stale.secret)
        elif self._ready is None:
            await self._prepare(stale.version)

    async def _registered(self, version: Version, secret: SecretSide) -> None:
        key_id = await self._keys.sent(version.codec, version.digest, secret)

        def take() -> None:
            self._keys.note(version.codec, secret, key_id)
            self._ready = _Ready(version, secret, key_id)

        await self._connections.computed(take)

    async def _rotate(self, version: Version) -> None:
        if self._version is not version:
            raise stale_version()
        current = None if self._ready is None else self._ready.key_id
        former = await self._connections.computed(self._keys.former, version.codec, current)
        secret = await self._connections.computed(SecretSide.generate, version.codec.parameters)
        key_id = await self._keys.sent(version.codec, version.digest, secret)

        def take() -> None:
            self._keys.replace(version.codec, secret, key_id, former)
            self._ready = _Ready(version, secret, key_id)

        await self._connections.computed(take)

    async def _delete(self) -> None:
        await self._keys.forgotten(None if self._ready is None else self._ready.key_id)

        def forget() -> None:
            self._keys.remove()
            self._ready = None

        await self._connections.computed(forget)

    async def _evaluate(self, ready: _Ready, body: bytes) -> Reply:
        """In one request, or as a job when the service expects it to take long."""
        query = {"model": self._model, "manifest": ready.version.digest, "keys": ready.key_id}
        limit = ready.version.codec.download_bytes
        if ready.version.expected > LONG_SECONDS:
            return await evaluate_as_job(self._connections, query, body, limit)
        reply = await Tries(self._connections).ask(Request("POST", "/infer", query, body, limit=limit))
        require_success(reply)
        return reply


def _encrypted(ready: _Ready, inputs: Sequence[Array]) -> tuple[bytes, float]:
    """A request's body, and seconds that it took."""
    started = perf_counter()
    return ready.version.codec.encrypt(ready.secret, inputs), perf_counter() - started


def _predictions(ready: _Ready, count: int, body: bytes, reply: Reply, client_seconds: float) -> list[Prediction]:
    codec = ready.version.codec
    started = perf_counter()
    binding = evaluation_binding(codec.binding, ready.key_id, body)
    with np.errstate(all="ignore"):  # whatever decrypted numbers are, they shall not end a call before it is over
        answer = codec.decrypt(ready.secret, reply.body, count, binding)
        client_seconds += perf_counter() - started
        return [
            Prediction.of(
                own,
                answer.marks,
                label=codec.label(own),
                model_version=codec.manifest.model_version,
                manifest=ready.version.digest,
                client_seconds=client_seconds,
                server_seconds=evaluation_seconds(reply),
                upload_bytes=len(body),
                download_bytes=len(reply.body),
                images=count,
            )
            for own in answer.scores
        ]
