"""The client for ordinary code."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Self

import httpx

from heinfer_client.base_client import BaseClient
from heinfer_client.blocking_connections import BlockingConnections, at_once
from heinfer_client.inputs import Input, kept
from heinfer_client.out_of_range import say_so
from heinfer_client.prediction import Prediction
from heinfer_client.session import Reading


class Client(BaseClient[httpx.BaseTransport]):
    """Has a service classify images that it cannot see.

    Keys are made at the first use and kept as long as the object. Several threads may use it at the same time: one of
    them prepares, and they predict side by side. In a process that has been forked it goes on with the same keys and
    connections of its own; it cannot be pickled.

    A request that nothing comes of is tried again within `timeout`, after pauses that grow, as late as the service or a
    proxy asks, and only so often in a row. All that a client tries again is drawn from one budget.

    Args:
        url: of the server.
        model: name of a model that it serves.
        keys_path: file to keep the secret key in (mode 0600) and take it from; beside it, where it is registered,
            if that folder can be written. Without it the key is never written anywhere.
        keys_passphrase: that this file is, or is to be, encrypted with; by default it is not.
        keys_keyring: whether it is, or is to be, encrypted with a random key that the system's keyring holds, instead.
        manifest: of the only version of the model that the client takes: its bytes, or a file of them. Without it the
            client goes on to another version when the service does, between two calls.
        api_key: that the service asks for; by default that of the environment variable HEINFER_API_KEY.
        transport: httpx transport to use instead of the network.
        progress: whether to show bars on a terminal while keys are made and sent.
        timeout: seconds that each request may take in all, tries and pauses included, however slowly the server
            answers: for the manifest, for each piece of the keys, for each image or batch of images. An evaluation that
            takes long is begun as a job and asked for, with a bar.
        ca: PEM file of the authorities whose certificates are trusted, instead of the common ones.
        certificate: of the client, for a service or proxy that asks for one: a PEM file of certificate and key, or a
            pair of files (certificate, key).
        allow_plain_http: send an API key, or a password, over plain http to another machine as well.
        on_out_of_range: what to do when an answer is beyond what the model's parameters can represent, after all
            requests of the call have been answered: "warn" (OutOfRangeWarning), or "error" (OutOfRangeError).

    Raises:
        SettingError: when an argument is malformed; from every method when the client is closed.
    """

    _connect = BlockingConnections

    def prepare(self) -> None:
        """Fetch and check the manifest, and have keys made and registered, as encrypt_and_predict does when needed.

        Raises:
            UntrustedManifestError: when the manifest is insecure, absurd or of another model.
            ServiceError: when the service refuses, there is none, or it cannot be reached (ServiceUnavailableError).
            SettingError, FormatError: when the file of the keys does not serve.
        """
        at_once(self._connections.call(self._session.prepare))

    def encrypt_and_predict(self, image: Input, *, maximum: int | None = None) -> Prediction:
        """Classify one image; of a model that takes a batch it is all of one.

        Args:
            image: NumPy array of the input's shape (C, H, W), or (H, W) for one channel, uint8 (0 to 255) or float (0
                to 1); or a PIL image, which is turned upright as its EXIF says. Of a model of values, an array of any
                finite numbers, or, where the model names its features, a mapping or a pandas row of all their names. Of
                a model of several inputs, a mapping of their names to such.
            maximum: the integer that is white, such as 65535 or 4095; arrays of integers other than uint8 need it.

        Raises:
            ImageError: for an image that does not fit the model, or whose meaning is not certain; none has been sent.
            OutOfRangeError: when the answer is out of range and an error was asked for.
            WorkerFailedError: when the server lost the request; it may be tried again.
            ModelChangedError: when the service has other versions of the model than one for the whole call.
            WrongAnswerError: when an answer is of another request.
            UntrustedManifestError, ServiceError, SettingError, FormatError: as prepare does.
        """
        one = kept(image)
        (prediction,) = self._predict(lambda codec: [codec.read_image(one, maximum)])
        return prediction

    def encrypt_and_predict_many(self, images: Iterable[Input], *, maximum: int | None = None) -> list[Prediction]:
        """Classify images, as many in each request as the model takes; predictions come in the order of the images.

        Args:
            images: any number, each as encrypt_and_predict takes it.
            maximum: the integer that is white in all of them.

        Raises:
            ImageError: for an image that does not fit the model, by its number; then none has been sent.
            OutOfRangeError: when an answer is out of range and an error was asked for; the others are lost with it.
            WorkerFailedError, ModelChangedError, WrongAnswerError, UntrustedManifestError, ServiceError, SettingError,
                FormatError: as encrypt_and_predict.
        """
        several = [kept(image) for image in images]
        return self._predict(lambda codec: codec.read_images(several, maximum))

    def rotate(self) -> None:
        """Make another secret key in the place of this one, register its evaluation keys, and go on with them.

        What is under way in other threads ends with the former ones. Then the service is told once to forget these. A
        file has the new key from when it is registered; other processes that use the file go on with the former one
        until they open it again. If anything fails all is as it was.

        Raises:
            UntrustedManifestError, ServiceError, SettingError, FormatError: as prepare does.
        """
        at_once(self._connections.call(self._session.rotate))

    def delete_keys(self) -> None:
        """Have the service forget the evaluation keys, and remove the file of the secret key, if there is one.

        New ones are made when they are needed.

        Raises:
            ServiceError: when the service cannot be reached, or refuses; then the file stays.
            SettingError, FormatError: when the keys are registered elsewhere, or the file is none or cannot be removed.
        """
        at_once(self._connections.call(self._session.delete_keys))

    def close(self) -> None:
        """Take no more calls, and close the connections; what other threads have under way ends with SettingError.

        Without keys_path the service is told to forget the evaluation keys that this client has registered in this
        process: once, within two seconds, and without an error when it cannot be reached. They would be of no use.
        """
        at_once(self._connections.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is GeneratorExit:  # perhaps thrown by the garbage collector, which should send nothing
            self._connections.registrations.begin()
        self.close()

    def _predict(self, read: Reading) -> list[Prediction]:
        predictions = at_once(self._connections.call(self._session.predict, read))
        say_so(predictions, self._on_out_of_range, stacklevel=4)  # its line is that of who called the client
        return predictions
