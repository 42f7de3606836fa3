"""The client for ordinary code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from time import sleep
from types import TracebackType
from typing import Self, TypeVar

import httpx

from heinfer.errors import ServiceError, ServiceUnavailableError
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
    within,
)

T = TypeVar("T")


class Client:
    """Has a service classify images that it cannot see.

    Keys are made at the first use and kept as long as the object. One thread at a time may use it.

    Args:
        url: of the server.
        model: name of a model that it serves.
        keys_path: file to keep the secret key in (mode 0600) and take it from; beside it, where it is registered,
            if that folder can be written. Without it the key is never written anywhere.
        api_key: that the service asks for; by default that of the environment variable HEINFER_API_KEY.
        transport: httpx transport to use instead of the network.
        progress: whether to show bars on a terminal while keys are made and sent.
        timeout: seconds that each request may take in all, however slowly the server answers: for the manifest, for
            registering the keys, for each image or batch of images. An evaluation that takes long is begun as a job and
            asked for, with a bar. While the service is busy, a request is sent again within that time, as late as the
            service asks.

    Raises:
        SettingError: when an argument is malformed; from every method when the client is closed.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str,
        keys_path: str | Path | None = None,
        api_key: str | None = None,
        transport: httpx.BaseTransport | None = None,
        progress: bool = True,
        timeout: float = DEADLINE,
    ) -> None:
        self._url, credentials = checked_address(url)
        headers = checked_headers(api_key, credentials)
        self._timeout = checked_timeout(timeout)
        self._bars = Bars(progress)
        self._session = Session(self._url, model, keys_path, self._bars, self._timeout)
        self._http = httpx.Client(auth=credentials, headers=headers, timeout=TIMEOUT, transport=transport)

    def prepare(self) -> None:
        """Fetch and check the manifest, and have keys made and registered, as encrypt_and_predict does when needed.

        Raises:
            UntrustedManifestError: when the manifest is insecure, absurd or of another model.
            ServiceError: when the service refuses, there is none, or it cannot be reached (ServiceUnavailableError).
            SettingError, FormatError: when the file of the keys does not serve.
        """
        self._open()
        self._run(self._session.prepare())

    def encrypt_and_predict(self, image: Image, *, maximum: int | None = None) -> Prediction:
        """Classify one image; of a model that takes a batch it is all of one.

        Args:
            image: NumPy array of the input's shape (C, H, W), or (H, W) for one channel, uint8 (0 to 255) or float (0
                to 1); or a PIL image, which is turned upright as its EXIF says. Of a model of values, an array of any
                finite numbers.
            maximum: the integer that is white, such as 65535 or 4095; arrays of integers other than uint8 need it.

        Raises:
            ImageError: for an image that does not fit the model, or whose meaning is not certain; none has been sent.
            WorkerFailedError: when the server lost the request; it may be tried again.
            UntrustedManifestError, ServiceError, SettingError, FormatError: as prepare does.
        """
        self._open()
        (prediction,) = self._predict([self._session.codec.read_image(image, maximum)])
        return prediction

    def encrypt_and_predict_many(self, images: Iterable[Image], *, maximum: int | None = None) -> list[Prediction]:
        """Classify images, as many in each request as the model takes; predictions come in the order of the images.

        Args:
            images: any number, each as encrypt_and_predict takes it.
            maximum: the integer that is white in all of them.

        Raises:
            ImageError: for an image that does not fit the model, by its number; then none has been sent.
            WorkerFailedError, UntrustedManifestError, ServiceError, SettingError, FormatError: as encrypt_and_predict.
        """
        self._open()
        return self._predict(self._session.codec.read_images(images, maximum))

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

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> None:
        require_open(self._http.is_closed)
        self._run(self._session.open())

    def _predict(self, inputs: Sequence[Array]) -> list[Prediction]:
        self._run(self._session.prepare())
        batches = self._session.codec.in_batches(inputs)
        return [prediction for batch in batches for prediction in self._run(self._session.predict(batch))]

    def _run(self, flow: Flow[T]) -> T:
        try:
            step = next(flow)
            while True:
                try:
                    reply = self._take(step)
                except ServiceUnavailableError as error:
                    step = flow.throw(error)
                except KeyboardInterrupt as error:
                    self._leave(flow, error)
                    raise
                else:
                    step = flow.send(reply)
        except StopIteration as stop:
            result: T = stop.value
            return result

    def _leave(self, flow: Flow[T], reason: KeyboardInterrupt) -> None:
        """Send what a flow that is stopped has still to say, if it can be sent."""
        with suppress(ServiceError, KeyboardInterrupt):
            self._take(flow.throw(reason))
        flow.close()

    def _take(self, step: Request | Pause) -> Reply | None:
        if isinstance(step, Request):
            return self._exchange(step)
        sleep(step.seconds)
        return None

    def _exchange(self, request: Request) -> Reply:
        total = len(request.body or b"")
        seconds = min(self._timeout, request.seconds)
        with transport_errors(self._url, self._timeout), self._bars.bar(request.upload, total) as advance:
            return within(seconds, lambda: self._send(request, advance))

    def _send(self, request: Request, advance: Advance) -> Reply:
        def pieces(body: bytes) -> Iterator[bytes]:
            for piece in chunks(body):
                yield piece
                advance(len(piece))

        content = None if request.body is None else pieces(request.body)
        url, headers = self._url + request.path, headers_of(request)
        with self._http.stream(request.method, url, params=request.query, content=content, headers=headers) as response:
            answer = Answer(request, response)
            for chunk in response.iter_bytes():
                answer.add(chunk)
            return answer.reply()
