"""The client for ordinary code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar, overload

import httpx

from heinfer.formats.manifest import Manifest
from heinfer_client.images import Image
from heinfer_client.messages import Flow, Reply, Request
from heinfer_client.prediction import Prediction
from heinfer_client.progress import Advance, Bars
from heinfer_client.session import Session
from heinfer_client.transfer import (
    DEADLINE,
    HEADERS,
    TIMEOUT,
    Answer,
    checked_address,
    checked_timeout,
    chunks,
    headers_of,
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
        keys_path: file to keep the secret key in (mode 0600) and take it from; beside it, where it is registered.
            Without it the key is never written anywhere.
        transport: httpx transport to use instead of the network.
        progress: whether to show bars on a terminal while keys are made and sent.
        timeout: seconds that each request may take in all, however slowly the server answers: for the manifest, for
            registering the keys, for each image.

    Raises:
        SettingError: when the URL or the time-out is malformed.
    """

    def __init__(
        self,
        url: str,
        *,
        model: str,
        keys_path: str | Path | None = None,
        transport: httpx.BaseTransport | None = None,
        progress: bool = True,
        timeout: float = DEADLINE,
    ) -> None:
        self._url, credentials = checked_address(url)
        self._timeout = checked_timeout(timeout)
        self._bars = Bars(progress)
        self._session = Session(self._url, model, Path(keys_path) if keys_path else None, self._bars)
        self._http = httpx.Client(auth=credentials, headers=HEADERS, timeout=TIMEOUT, transport=transport)

    def prepare(self) -> None:
        """Fetch and check the manifest, and have keys made and registered, as encrypt_and_predict does when needed.

        Raises:
            UntrustedManifestError: when the manifest is insecure, absurd or of another model.
            ServiceError: when the service refuses, or cannot be reached (ServiceUnavailableError).
            SettingError, FormatError: when the file of the keys does not serve.
        """
        self._run(self._session.open())
        self._run(self._session.prepare())

    @overload
    def encrypt_and_predict(self, images: Sequence[Image]) -> list[Prediction]: ...

    @overload
    def encrypt_and_predict(self, images: Image) -> Prediction: ...

    def encrypt_and_predict(self, images: Image | Sequence[Image]) -> Prediction | list[Prediction]:
        """Classify one image, or the images of a list one by one.

        Args:
            images: NumPy array of the input's shape (C, H, W), or (H, W) for one channel, uint8 or float in [0, 1];
                or a PIL image; or a list of such.

        Raises:
            ImageError: for an image that does not fit the model; then none has been sent.
            WorkerFailedError: when the server lost the request; it may be tried again.
            UntrustedManifestError, ServiceError, SettingError, FormatError: as prepare does.
        """
        self._run(self._session.open())
        inputs = self._session.codec.read_images(images)
        self._run(self._session.prepare())
        predictions = [self._run(self._session.predict(values)) for values in inputs]
        return predictions if isinstance(images, Sequence) else predictions[0]

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
        """Bytes that one image sends; SettingError before prepare."""
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

    def _run(self, flow: Flow[T]) -> T:
        try:
            request = next(flow)
            while True:
                request = flow.send(self._exchange(request))
        except StopIteration as stop:
            result: T = stop.value
            return result

    def _exchange(self, request: Request) -> Reply:
        total = len(request.body or b"")
        with transport_errors(self._url, self._timeout), self._bars.bar(request.upload, total) as advance:
            return within(self._timeout, lambda: self._send(request, advance))

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
