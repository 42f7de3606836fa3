"""The client for asyncio: the same flows, computed in threads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

import httpx

from heinfer.errors import ServiceError, ServiceUnavailableError, SettingError
from heinfer.formats.manifest import Manifest
from heinfer_client.codec import Array
from heinfer_client.images import Image
from heinfer_client.messages import Flow, Pause, Reply, Request
from heinfer_client.prediction import Prediction
from heinfer_client.progress import Advance, Bars
from heinfer_client.session import Session
from heinfer_client.transfer import (
    DEADLINE,
    TIMEOUT,
    Answer,
    checked_address,
    checked_headers,
    checked_timeout,
    chunks,
    headers_of,
    require_open,
    transport_errors,
)

T = TypeVar("T")


@dataclass(frozen=True)
class _Done(Generic[T]):
    result: T


class AsyncClient:
    """Has a service classify images that it cannot see; see Client, whose arguments, errors and results it shares.

    Several tasks may use it at the same time, all of one event loop.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str,
        keys_path: str | Path | None = None,
        api_key: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        progress: bool = True,
        timeout: float = DEADLINE,
    ) -> None:
        self._url, credentials = checked_address(url)
        headers = checked_headers(api_key, credentials)
        self._timeout = checked_timeout(timeout)
        self._bars = Bars(progress)
        self._session = Session(self._url, model, keys_path, self._bars, self._timeout)
        self._http = httpx.AsyncClient(auth=credentials, headers=headers, timeout=TIMEOUT, transport=transport)
        self._preparing = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def prepare(self) -> None:
        """Fetch and check the manifest, and have keys made and registered; see Client.prepare."""
        await self._open()
        await self._prepare()

    async def encrypt_and_predict(self, image: Image, *, maximum: int | None = None) -> Prediction:
        """Classify one image; see Client.encrypt_and_predict."""
        await self._open()
        (prediction,) = await self._predict([self._session.codec.read_image(image, maximum)])
        return prediction

    async def encrypt_and_predict_many(
        self, images: Iterable[Image], *, maximum: int | None = None
    ) -> list[Prediction]:
        """Classify images, one request after the other; see Client.encrypt_and_predict_many."""
        await self._open()
        return await self._predict(self._session.codec.read_images(images, maximum))

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
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _open(self) -> None:
        require_open(self._http.is_closed)
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if self._loop is not loop:  # its connections would fail, now and then
            raise SettingError("this client has been used in another event loop: make one in each (asyncio.run is one)")
        async with self._preparing:
            await self._run(self._session.open())

    async def _prepare(self) -> None:
        async with self._preparing:  # or two tasks would make two secret keys
            await self._run(self._session.prepare())

    async def _predict(self, inputs: Sequence[Array]) -> list[Prediction]:
        await self._prepare()
        batches = self._session.codec.in_batches(inputs)
        return [prediction for batch in batches for prediction in await self._run(self._session.predict(batch))]

    async def _run(self, flow: Flow[T]) -> T:
        def advance(reply: Reply | ServiceUnavailableError | None) -> Request | Pause | _Done[T]:
            try:
                return flow.throw(reply) if isinstance(reply, ServiceUnavailableError) else flow.send(reply)
            except StopIteration as stop:  # cannot leave a thread through a future
                return _Done(stop.value)

        reply: Reply | ServiceUnavailableError | None = None
        try:
            while not isinstance(step := await _computed(advance, reply), _Done):
                try:
                    reply = await self._take(step)
                except ServiceUnavailableError as error:
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

    async def _take(self, step: Request | Pause) -> Reply | None:
        if isinstance(step, Request):
            return await self._exchange(step)
        await asyncio.sleep(step.seconds)
        return None

    async def _exchange(self, request: Request) -> Reply:
        total = len(request.body or b"")
        with transport_errors(self._url, self._timeout), self._bars.bar(request.upload, total) as advance:
            async with asyncio.timeout(min(self._timeout, request.seconds)):
                return await self._send(request, advance)

    async def _send(self, request: Request, advance: Advance) -> Reply:
        async def pieces(body: bytes) -> AsyncIterator[bytes]:
            for piece in chunks(body):
                yield piece
                advance(len(piece))

        content = None if request.body is None else pieces(request.body)
        url, headers = self._url + request.path, headers_of(request)
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
