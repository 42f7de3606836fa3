"""The client for asyncio: the same flows, computed in threads."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, NoReturn, Self, TypeVar

import httpx

from heinfer.errors import HeinferError, ServiceError, SettingError
from heinfer.formats.manifest import Manifest
from heinfer_client.address import checked_address
from heinfer_client.answers import Answer
from heinfer_client.images import Image, kept
from heinfer_client.keyfile import key_file
from heinfer_client.messages import Alone, Flow, Pause, Reply, Request
from heinfer_client.out_of_range import OnOutOfRange, checked_choice, say_so
from heinfer_client.prediction import Prediction
from heinfer_client.progress import Advance, Bars
from heinfer_client.registrations import FAREWELL_SECONDS
from heinfer_client.retries import Budget, Patience
from heinfer_client.session import Reading, Session
from heinfer_client.tls import Certificate
from heinfer_client.transfer import (
    DEADLINE,
    checked_timeout,
    chunks,
    headers_of,
    refuse_to_travel,
    require_open,
    transport_errors,
)

T = TypeVar("T")


@dataclass(frozen=True)
class _Done(Generic[T]):
    result: T


class AsyncClient:
    """Has a service classify images that it cannot see; see Client, whose arguments, errors and results it shares.

    Several tasks may use it at the same time, all of one event loop in one process.
    """

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
        transport: httpx.AsyncBaseTransport | None = None,
        progress: bool = True,
        timeout: float = DEADLINE,
        ca: str | Path | None = None,
        certificate: Certificate | None = None,
        allow_plain_http: bool = False,
        on_out_of_range: OnOutOfRange = "warn",
    ) -> None:
        self._address = checked_address(
            url,
            api_key=api_key,
            ca=ca,
            certificate=certificate,
            allow_plain_http=allow_plain_http,
            is_network=transport is None,
        )
        self._timeout = checked_timeout(timeout)
        self._on_out_of_range = checked_choice(on_out_of_range)
        self._bars = Bars(progress)
        patience = Patience(self._timeout, Budget())
        file = key_file(keys_path, keys_passphrase, keys_keyring)
        self._session = Session(self._address.url, model, file, self._bars, patience, manifest)
        self._http = httpx.AsyncClient(transport=transport, **self._address.options)
        self._alone = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0
        self._calls = 0
        self._is_closed = False

    async def prepare(self) -> None:
        """Fetch and check the manifest, and have keys made and registered; see Client.prepare."""
        async with self._call():
            await self._run(self._session.prepare())

    def encrypt_and_predict(self, image: Image, *, maximum: int | None = None) -> Coroutine[Any, Any, Prediction]:
        """Classify one image, as it is when this is called and not awaited; see Client.encrypt_and_predict."""
        return self._predict_one(kept(image), maximum)

    def encrypt_and_predict_many(
        self, images: Iterable[Image], *, maximum: int | None = None
    ) -> Coroutine[Any, Any, list[Prediction]]:
        """Classify images, one request after the other; see Client.encrypt_and_predict_many."""
        return self._predict_many([kept(image) for image in images], maximum)

    async def rotate(self) -> None:
        """Make another secret key in the place of this one, and go on with it; see Client.rotate."""
        async with self._call():
            await self._run(self._session.rotate())

    async def delete_keys(self) -> None:
        """Have the service forget the evaluation keys, and remove the file; see Client.delete_keys."""
        async with self._call():
            await self._run(self._session.delete_keys())

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

    async def aclose(self) -> None:
        """Take no more calls, and close the connections; what other tasks have under way ends with SettingError.

        Without keys_path the service is told to forget the evaluation keys, as Client.close does, if this is the
        process and the event loop that the client was used in.
        """
        is_last = not self._is_closed and not self._calls
        self._is_closed = True
        if is_last:
            await self._end()

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        refuse_to_travel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is GeneratorExit:  # perhaps thrown by the garbage collector, which should send nothing
            self._session.registrations.begin()
        await self.aclose()

    def _require_usable(self) -> None:
        """SettingError when it is closed, or in another process or another event loop than that of the first use."""
        require_open(self._is_closed)
        self._process = self._process or os.getpid()
        if self._process != os.getpid():  # both would read from the same sockets
            raise SettingError("this client has been used in the process that this one was forked from: make one here")
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if self._loop is not loop:  # its connections would fail, now and then
            raise SettingError("this client has been used in another event loop: make one in each (asyncio.run is one)")

    async def _predict_one(self, image: Image, maximum: int | None) -> Prediction:
        (prediction,) = await self._predict(lambda codec: [codec.read_image(image, maximum)])
        return prediction

    async def _predict_many(self, images: Sequence[Image], maximum: int | None) -> list[Prediction]:
        return await self._predict(lambda codec: codec.read_images(images, maximum))

    async def _predict(self, read: Reading) -> list[Prediction]:
        async with self._call():
            predictions = await self._run(self._session.predict(read))
        say_so(predictions, self._on_out_of_range, stacklevel=4)  # its line is that of who called the client
        return predictions

    async def _run(self, flow: Flow[T]) -> T:
        def advance(reply: Reply | HeinferError | None) -> Request | Pause | Alone | _Done[T]:
            try:
                return flow.throw(reply) if isinstance(reply, HeinferError) else flow.send(reply)
            except StopIteration as stop:  # cannot leave a thread through a future
                return _Done(stop.value)

        reply: Reply | HeinferError | None = None
        try:
            while not isinstance(step := await _computed(advance, reply), _Done):
                try:
                    reply = await self._take(step)
                except HeinferError as error:
                    reply = error
        except asyncio.CancelledError as error:
            await self._leave(flow, error)
            raise
        return step.result

    async def _leave(self, flow: Flow[T], reason: asyncio.CancelledError) -> None:
        """Send what a flow that is stopped has still to say, if it can be sent."""
        with suppress(ServiceError, asyncio.CancelledError):
            await self._take(flow.throw(reason))
        flow.close()

    async def _take(self, step: Request | Pause | Alone) -> Reply | None:
        if isinstance(step, Request):
            return await self._exchange(step)
        if isinstance(step, Alone):
            async with self._alone:
                await self._run(step.flow)
        else:
            await asyncio.sleep(step.seconds)
        return None

    async def _exchange(self, request: Request) -> Reply:
        require_open(self._is_closed)
        total = len(request.body or b"")
        with transport_errors(self._address, self._timeout), self._bars.bar(request.upload, total) as advance:
            async with asyncio.timeout(min(self._timeout, request.seconds)):
                return await self._send(request, advance)

    @asynccontextmanager
    async def _call(self) -> AsyncIterator[None]:
        """Around a call, whose request under way aclose does not disturb."""
        self._require_usable()
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1
            if self._is_closed and not self._calls:
                await self._end()

    async def _end(self) -> None:
        try:
            await self._say_farewell()
        finally:
            await self._http.aclose()

    async def _say_farewell(self) -> None:
        words = self._session.registrations.farewell()
        if self._loop is not asyncio.get_running_loop():
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_SECONDS):
                for word in words:
                    with suppress(Exception):  # nothing hangs on it
                        await self._send(word, lambda _bytes: None)

    async def _send(self, request: Request, advance: Advance) -> Reply:
        async def pieces(body: bytes) -> AsyncIterator[bytes]:
            for piece in chunks(body):
                yield piece
                advance(len(piece))

        content = None if request.body is None else pieces(request.body)
        url, headers = self._address.url + request.path, headers_of(request)
        async with self._http.stream(
            request.method, url, params=request.query, content=content, headers=headers
        ) as response:
            answer = Answer(request, response)
            async for chunk in response.aiter_bytes():
                answer.add(chunk)
            return answer.reply()


async def _computed(work: Callable[..., T], *arguments: object) -> T:
    """Do work in a thread. Who is cancelled still waits for its end: nobody else may begin where it has not ended."""
    # A task, as asyncio.to_thread needs one, would be cancelled as well when the event loop ends.
    thread = asyncio.get_running_loop().run_in_executor(None, copy_context().run, partial(work, *arguments))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        while not thread.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({thread})
        thread.exception()  # nobody else asks for it
        raise
