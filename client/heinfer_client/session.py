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
from heinfer_client.replicas import just_registered, model_changed, stale_version
from heinfer_client.retries import Tries
from heinfer_client.trust import pinned_manifest, trusted_manifest

T = TypeVar("T")

Reading = Callable[[Codec], Sequence[Array]]
"""Makes a network's inputs from what the caller gave, as a version of the model wants them."""


@dataclass(frozen=True, eq=False)
class _Ready:
    """What a request needs."""

    codec: Codec
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
        self._codec: Codec | None = None
        self._expected = 0.0  # seconds of an evaluation, as the service says
        self._ready: _Ready | None = None

    @property
    def codec(self) -> Codec:
        """The model, once `open` has run; SettingError before."""
        if self._codec is None:
            raise SettingError("nothing is known of the model yet: call prepare() or encrypt_and_predict() first")
        return self._codec

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

        async def work(codec: Codec) -> list[Prediction]:
            inputs = await self._connections.computed(read, codec)  # before any key is made
            if not self._is_ready_for(codec):
                await self._connections.alone(self._prepare, codec)
            return await self._evaluated(codec, inputs)

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

        async def work(codec: Codec) -> None:
            await self._connections.alone(self._rotate, codec)

        await self._with_one_version(work)
        await self._forget_retired()

    async def delete_keys(self) -> None:
        """Have the service forget the evaluation keys, and remove the file of the secret key.

        Raises:
            ServiceError: as Keys.forgotten does; then the file is as before.
            SettingError: when the keys are registered elsewhere, or the file cannot be removed.
        """
        await self._connections.alone(self._delete)

    async def _with_one_version(self, work: Callable[[Codec], Awaitable[T]]) -> T:
        is_refreshed = False
        while True:
            if self._codec is None:
                await self._connections.alone(self._fetch, None)
            codec = self._codec
            assert codec is not None
            try:
                return await work(codec)
            except UnknownManifestError as error:
                if self._pinned is not None or is_refreshed:
                    raise model_changed(self._model, self._pinned is not None) from error
                is_refreshed = True
            await self._connections.alone(self._fetch, codec)

    async def _evaluated(self, codec: Codec, inputs: Sequence[Array]) -> list[Prediction]:
        predictions: list[Prediction] = []
        with ExitStack() as held:
            ready = self._for(codec, held)
            for batch in codec.in_batches(inputs):
                try:
                    predictions += await self._batch(ready, batch)
                except UnknownKeysError:
                    await self._connections.alone(self._register, ready)
                    ready = self._for(codec, held)  # perhaps of another secret key: encrypted is anew
                    with just_registered():
                        predictions += await self._batch(ready, batch)
        return predictions

    async def _batch(self, ready: _Ready, inputs: Sequence[Array]) -> list[Prediction]:
        body, client_seconds = await self._connections.computed(_encrypted, ready, inputs)
        reply = await self._evaluate(ready, body)
        return await self._connections.computed(_predictions, ready, len(inputs), body, reply, client_seconds)

    def _for(self, codec: Codec, held: ExitStack) -> _Ready:
        """What requests to a version need, and will find registered for as long as `held` is open.

        Raises:
            UnknownManifestError: when another call has gone on to the next version.
        """
        ready = self._ready
        if ready is None or ready.codec is not codec:
            raise stale_version()
        held.enter_context(self._connections.registrations.used(ready.key_id))
        return ready

    def _is_ready_for(self, codec: Codec) -> bool:
        return self._ready is not None and self._ready.codec is codec

    async def _forget_retired(self) -> None:
        """Have the service forget keys that nobody uses any more, best effort."""
        for word in self._connections.registrations.due():
            with suppress(HeinferError):
                await self._connections.send(word)
                self._connections.registrations.heard(word)

    # Flows that are done alone, and what they change: computed, as that goes on to its end when a task is cancelled

    async def _fetch(self, stale: Codec | None) -> None:
        """Have the version that the service has now in the place of another, unless another call has done so."""
        if self._codec is stale:
            request = Request("GET", f"{model_path(self._model)}/manifest", limit=MAX_MANIFEST_BYTES)
            reply = await Tries(self._connections).ask(request)
            codec = await self._connections.computed(self._read, reply)
            self._expected, self._codec = expected_seconds(reply), codec

    def _read(self, reply: Reply) -> Codec:
        require_service(reply, self._connections.url)
        require_success(reply)
        served = self._pinned or reply.body  # of a pinned one the answer only says how long an evaluation takes
        return Codec(trusted_manifest(served, self._model), served)

    async def _prepare(self, codec: Codec) -> None:
        """Have a secret key for a version, and its evaluation keys registered."""
        if self._codec is not codec:
            raise stale_version()
        if self._is_ready_for(codec):
            return
        secret = await self._connections.computed(self._recall, codec)
        if not self._is_ready_for(codec):
            await self._registered(codec, secret)

    def _recall(self, codec: Codec) -> SecretSide:
        """The secret key for a version, which is ready if its evaluation keys are known to be registered."""
        ready, secret = self._ready, self._keys.secret_for(codec)
        if ready is not None and ready.secret is secret and ready.codec.key_set == codec.key_set:
            registered: str | None = ready.key_id
        else:
            registered = self._keys.noted(codec, secret)
        if registered is not None:
            self._ready = _Ready(codec, secret, registered)
        return secret

    async def _register(self, stale: _Ready) -> None:
        """Register keys that the service does not know (any more), unless another call has done so, or deleted them."""
        if self._ready is stale:
            await self._registered(stale.codec, stale.secret)
        elif self._ready is None:
            await self._prepare(stale.codec)

    async def _registered(self, codec: Codec, secret: SecretSide) -> None:
        key_id = await self._keys.sent(codec, secret)

        def take() -> None:
            self._keys.note(codec, secret, key_id)
            self._ready = _Ready(codec, secret, key_id)

        await self._connections.computed(take)

    async def _rotate(self, codec: Codec) -> None:
        if self._codec is not codec:
            raise stale_version()
        current = None if self._ready is None else self._ready.key_id
        former = await self._connections.computed(self._keys.former, codec, current)
        secret = await self._connections.computed(SecretSide.generate, codec.parameters)
        key_id = await self._keys.sent(codec, secret)

        def take() -> None:
            self._keys.replace(codec, secret, key_id, former)
            self._ready = _Ready(codec, secret, key_id)

        await self._connections.computed(take)

    async def _delete(self) -> None:
        await self._keys.forgotten(None if self._ready is None else self._ready.key_id)

        def forget() -> None:
            self._keys.remove()
            self._ready = None

        await self._connections.computed(forget)

    async def _evaluate(self, ready: _Ready, body: bytes) -> Reply:
        """In one request, or as a job when the service expects it to take long."""
        query = {"model": self._model, "manifest": ready.codec.digest, "keys": ready.key_id}
        limit = ready.codec.download_bytes
        if self._expected > LONG_SECONDS:
            return await evaluate_as_job(self._connections, query, body, limit)
        reply = await Tries(self._connections).ask(Request("POST", "/infer", query, body, limit=limit))
        require_success(reply)
        return reply


def _encrypted(ready: _Ready, inputs: Sequence[Array]) -> tuple[bytes, float]:
    """A request's body, and seconds that it took."""
    started = perf_counter()
    return ready.codec.encrypt(ready.secret, inputs), perf_counter() - started


def _predictions(ready: _Ready, count: int, body: bytes, reply: Reply, client_seconds: float) -> list[Prediction]:
    codec = ready.codec
    started = perf_counter()
    binding = evaluation_binding(codec.binding, ready.key_id, body)
    with np.errstate(all="ignore"):  # whatever decrypted numbers are, they shall not end a call before it is over
        answer = codec.decrypt(ready.secret, reply.body, count, binding)
        client_seconds += perf_counter() - started
        return [
            Prediction.of(
                codec.outputs(own),
                codec.labels(own),
                answer.marks,
                model_version=codec.manifest.model_version,
                manifest=ready.codec.digest,
                client_seconds=client_seconds,
                server_seconds=evaluation_seconds(reply),
                upload_bytes=len(body),
                download_bytes=len(reply.body),
                images=count,
            )
            for own in answer.scores
        ]
