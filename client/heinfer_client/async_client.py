"""The client for asyncio."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Sequence
from types import TracebackType
from typing import Any, Self

import httpx

from heinfer_client.base_client import BaseClient
from heinfer_client.inputs import Input, kept
from heinfer_client.loop_connections import LoopConnections
from heinfer_client.out_of_range import say_so
from heinfer_client.prediction import Prediction
from heinfer_client.session import Reading


class AsyncClient(BaseClient[httpx.AsyncBaseTransport]):
    """Has a service classify images that it cannot see; see Client, whose arguments, errors and results it shares.

    Several tasks may use it at the same time, all of one event loop in one process.
    """

    _connect = LoopConnections

    async def prepare(self) -> None:
        """Fetch and check the manifest, and have keys made and registered; see Client.prepare."""
        await self._connections.call(self._session.prepare)

    def encrypt_and_predict(self, image: Input, *, maximum: int | None = None) -> Coroutine[Any, Any, Prediction]:
        """Classify one image, as it is when this is called and not awaited; see Client.encrypt_and_predict."""
        return self._predict_one(kept(image), maximum)

    def encrypt_and_predict_many(
        self, images: Iterable[Input], *, maximum: int | None = None
    ) -> Coroutine[Any, Any, list[Prediction]]:
        """Classify images, one request after the other; see Client.encrypt_and_predict_many."""
        return self._predict_many([kept(image) for image in images], maximum)

    async def rotate(self) -> None:
        """Make another secret key in the place of this one, and go on with it; see Client.rotate."""
        await self._connections.call(self._session.rotate)

    async def delete_keys(self) -> None:
        """Have the service forget the evaluation keys, and remove the file; see Client.delete_keys."""
        await self._connections.call(self._session.delete_keys)

    async def aclose(self) -> None:
        """Take no more calls, and close the connections; what other tasks have under way ends with SettingError.

        Without keys_path the service is told to forget the evaluation keys, as Client.close does, if this is the
        process and the event loop that the client was used in.
        """
        await self._connections.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is GeneratorExit:  # perhaps thrown by the garbage collector, which should send nothing
            self._connections.registrations.begin()
        await self.aclose()

    async def _predict_one(self, image: Input, maximum: int | None) -> Prediction:
        (prediction,) = await self._predict(lambda codec: [codec.read_image(image, maximum)])
        return prediction

    async def _predict_many(self, images: Sequence[Input], maximum: int | None) -> list[Prediction]:
        return await self._predict(lambda codec: codec.read_images(images, maximum))

    async def _predict(self, read: Reading) -> list[Prediction]:
        predictions = await self._connections.call(self._session.predict, read)
        say_so(predictions, self._on_out_of_range, stacklevel=4)  # its line is that of who called the client
        return predictions
