"""Who calls the service meanwhile: with keys of long standing, or with new ones each time; every answer is checked."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep

import httpx
import numpy as np

from heinfer.errors import ServiceError
from heinfer.formats.bundle import Bundle
from heinfer.zoo import digits
from heinfer_cli.comparison import Scores, cleartext_scores, precision_bits
from heinfer_client import Client

_LEAST_BITS = 8.0
"""Below that an answer is wrong: shipped networks of MNIST have more than ten."""
_TIMEOUT = 60.0


@dataclass
class Tally:
    """What callers saw, all together.

    Attributes:
        right, wrong: answers.
        errors: exceptions by their code.
        least_bits: precision of the worst answer.
    """

    right: int = 0
    wrong: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    least_bits: float = np.inf
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answered(self, bits: float) -> None:
        with self._lock:
            self.right += bits >= _LEAST_BITS
            self.wrong += bits < _LEAST_BITS
            self.least_bits = min(self.least_bits, bits)

    def failed(self, error: ServiceError) -> None:
        with self._lock:
            self.errors[error.server_code] += 1


class Answers:
    """What a model says of some digits in cleartext, computed once for all who send them.

    Attributes:
        name: of the model.
        images, scores: the digits, and its scores of them.
    """

    def __init__(self, model: Bundle) -> None:
        self.name = model.manifest.name
        self.images = digits().images
        self.scores: Scores = cleartext_scores(model, list(self.images))


class Caller:
    """One tenant with one model and one secret key: classifies digits, and checks the scores."""

    def __init__(self, url: str, answers: Answers, api_key: str, keys: Path | None, tally: Tally) -> None:
        self._answers = answers
        self._tally = tally
        self._number = 0
        self.client = Client(url, model=answers.name, api_key=api_key, keys_path=keys, progress=False, timeout=_TIMEOUT)

    def call(self) -> bool:
        """Send the next digit; whether there was an answer."""
        self._number = (self._number + 1) % len(self._answers.images)
        try:
            prediction = self.client.encrypt_and_predict(self._answers.images[self._number])
        except ServiceError as error:
            self._tally.failed(error)
            return False
        self._tally.answered(precision_bits(prediction.scores, self._answers.scores[self._number]))
        return True

    def until_answered(self, seconds: float) -> float | None:
        """Call until there is an answer; how long that took, None when it does not come in time."""
        started = monotonic()
        while not self.call():
            if monotonic() - started > seconds:
                return None
            sleep(0.2)
        return monotonic() - started


class Steady(threading.Thread):
    """A caller that goes on calling."""

    def __init__(self, caller: Caller, pause: float, over: threading.Event) -> None:
        super().__init__(daemon=True)
        self._caller, self._pause, self._over = caller, pause, over

    def run(self) -> None:
        while not self._over.wait(self._pause):
            self._caller.call()


class Newcomers(threading.Thread):
    """Registers new keys, uses them once and deletes them, again and again."""

    def __init__(
        self, url: str, answers: Answers, api_key: str, tally: Tally, pause: float, over: threading.Event
    ) -> None:
        super().__init__(daemon=True)
        self._url, self._answers, self._api_key, self._tally = url, answers, api_key, tally
        self._pause, self._over = pause, over
        self.registered = 0

    def run(self) -> None:
        while not self._over.wait(self._pause):
            caller = Caller(self._url, self._answers, self._api_key, None, self._tally)
            with caller.client:
                self.registered += caller.call()
            self._forget()

    def _forget(self) -> None:
        headers = {"Authorization": f"Bearer {self._api_key}"}
        try:
            with httpx.Client(base_url=self._url, headers=headers, timeout=_TIMEOUT) as http:
                for keys in http.get("/keys").json()["keys"]:
                    http.delete(f"/keys/{keys['keys']}")
        except (httpx.TransportError, KeyError):
            return  # the service is down: the next one forgets these as well
