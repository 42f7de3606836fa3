"""What the service asks a worker, and what counts as an answer: everything else ends the worker."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from heinfer.errors import HeinferError
from heinfer_server.evaluation.messages import ERRORS, REPLY, TEXT_BYTES, TRACE_BYTES, Kind, ProtocolError, Request
from heinfer_server.evaluation.tasks import Evaluated, EvaluationTask, TaskFailure

Receive = Callable[[int], bytes]
"""Waits for so many bytes."""

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True)
class Head:
    """The head of a reply."""

    kind: int
    number: int
    keys_seconds: float
    evaluation_seconds: float
    error: int
    text: int
    rest: int


class Question(Protocol[T_co]):
    """Something to ask a worker."""

    def request(self, number: int) -> Request:
        """What is sent."""

    def answer(self, head: Head, receive: Receive) -> T_co:
        """Read the rest of the reply; ProtocolError when it is none to this."""


@dataclass(frozen=True)
class Ready:
    """How long it took to load each version of a model.

    Attributes:
        versions: how many there are.
        seconds: the most that all of them may take.
    """

    versions: int
    seconds: float

    def request(self, number: int) -> Request:
        return Request(Kind.READY, number)

    def answer(self, head: Head, receive: Receive) -> list[float]:
        expected = struct.Struct(f"<{self.versions}d")
        _require(head.kind == Kind.READY and not head.text and head.rest == expected.size, "is none to its start")
        return [_within(seconds, self.seconds) for seconds in expected.unpack(receive(expected.size))]


@dataclass(frozen=True)
class Forget:
    """Let go of loaded keys, by their ids."""

    ids: tuple[str, ...]

    def request(self, number: int) -> Request:
        return Request(Kind.FORGET, number, None, self.ids)

    def answer(self, head: Head, receive: Receive) -> None:  # noqa: ARG002 - there is nothing more
        _require(head.kind == Kind.FORGET and not head.text and not head.rest, "is none to what it was to forget")


@dataclass(frozen=True)
class Evaluate:
    """Evaluate one request.

    Attributes:
        task: what to evaluate.
        length: bytes of the frame of its outputs.
        seconds: that it may take.
    """

    task: EvaluationTask
    length: int
    seconds: float

    def request(self, number: int) -> Request:
        return Request(Kind.EVALUATE, number, self.task)

    def answer(self, head: Head, receive: Receive) -> Evaluated | TaskFailure:
        if head.kind == Kind.FAILED:
            return self._failure(head, receive)
        _require(head.kind == Kind.EVALUATE and not head.text and head.rest == self.length, "is none to an evaluation")
        seconds = [_within(taken, self.seconds) for taken in (head.keys_seconds, head.evaluation_seconds)]
        return Evaluated(receive(self.length), *seconds)

    @staticmethod
    def _failure(head: Head, receive: Receive) -> TaskFailure:
        bounds = head.error <= len(ERRORS) and head.text <= TEXT_BYTES and head.rest <= TRACE_BYTES
        _require(bounds, "tells more of a failure than there is to tell")
        text, trace = (_printable(receive(length)) for length in (head.text, head.rest))
        error: HeinferError | None = ERRORS[head.error - 1](text) if head.error else None
        return TaskFailure(error, trace)


@dataclass(frozen=True)
class Asked(Generic[T]):
    """A question on its way, under its number."""

    question: Question[T]
    number: int

    def request(self) -> Request:
        return self.question.request(self.number)

    def answer(self, receive: Receive) -> T:
        """Wait for the reply; ProtocolError when what comes is none."""
        head = Head(*REPLY.unpack(receive(REPLY.size)))
        _require(head.number == self.number, "is to something else")
        return self.question.answer(head, receive)


def _require(fits: bool, problem: str) -> None:
    if not fits:
        raise ProtocolError(f"an answer {problem}")


def _within(seconds: float, most: float) -> float:
    _require(0 <= seconds <= most, "took a time that cannot be")  # so written that NaN fails
    return seconds


def _printable(text: bytes) -> str:
    """Text without what would do something where it is printed."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text.decode(errors="replace"))
