"""What passes between the service and a worker: as it was sent, or refused; nothing a worker sends has no bound."""

from __future__ import annotations

import math
import os
import pickle
import socket
import struct
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heinfer.errors import BackendError, FrameError, HeinferError, ResidueRangeError, SettingError
from heinfer_server.evaluation import messages
from heinfer_server.evaluation.messages import (
    ERRORS,
    REPLY,
    TEXT_BYTES,
    TRACE_BYTES,
    Kind,
    ProtocolError,
    Request,
    receive,
    receive_request,
)
from heinfer_server.evaluation.questions import Asked, Evaluate, Forget, Question, Ready
from heinfer_server.evaluation.tasks import Evaluated, EvaluationTask, TaskFailure
from heinfer_server.keys.frame_file import FrameFile

IDS = st.binary(min_size=32, max_size=32).map(bytes.hex)
NUMBERS = st.integers(0, 2**64 - 1)
LENGTH, SECONDS = 24, 60.0
TASK = EvaluationTask("0" * 64, "1" * 64, None, b"inputs")
QUESTIONS = [Ready(2, SECONDS), Forget(("2" * 64,)), Evaluate(TASK, LENGTH, SECONDS)]


class Replies:
    """Bytes that a worker has sent, and the most that was waited for."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.most = 0

    def receive(self, length: int) -> bytes:
        self.most = max(self.most, length)
        data, self._data = self._data[:length], self._data[length:]
        if len(data) < length:
            raise EOFError
        return data

    @property
    def is_read(self) -> bool:
        return not self._data


def through_a_socket(request: Request) -> Request:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        request.send(ours)
        return receive_request(theirs)


@given(NUMBERS, IDS, IDS, st.lists(IDS, max_size=5), st.binary(max_size=100), st.integers(0, 2**62))
def test_a_request_is_what_was_sent(number, manifest, key_id, forget, inputs, watched):
    task = EvaluationTask(manifest, key_id, None, inputs, watched)
    assert through_a_socket(Request(Kind.EVALUATE, number, task)) == Request(Kind.EVALUATE, number, task)
    assert through_a_socket(Request(Kind.READY, number)) == Request(Kind.READY, number)
    ids = Request(Kind.FORGET, number, None, tuple(forget))
    assert through_a_socket(ids) == ids


@given(st.binary(min_size=1, max_size=10_000))
def test_keys_come_as_a_file_that_nobody_can_change(frame):
    request = through_a_socket(Request(Kind.EVALUATE, 1, EvaluationTask("0" * 64, "1" * 64, FrameFile.of(frame), b"")))
    keys = request.task.keys
    with keys.mapped() as mapped:
        assert bytes(mapped) == frame
    for change in (lambda: os.write(keys.fileno(), b"x"), lambda: os.ftruncate(keys.fileno(), 0)):
        with pytest.raises(OSError):  # noqa: PT011 - whichever way it is refused
            change()
    with pytest.raises(PermissionError):  # the same file, opened anew
        os.write(os.open(f"/proc/self/fd/{keys.fileno()}", os.O_RDWR), b"x")


def sent(send, *arguments: object) -> bytes:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send(ours, *arguments)
        ours.close()
        data = b""
        while piece := theirs.recv(1 << 16):
            data += piece
    return data


def answer(question: Question, number: int, data: bytes) -> object:
    replies = Replies(data)
    found = Asked(question, number).answer(replies.receive)
    assert replies.is_read
    return found


@given(NUMBERS, st.floats(0, SECONDS), st.floats(0, SECONDS), st.binary(min_size=LENGTH, max_size=LENGTH))
def test_replies_are_what_was_sent(number, keys_seconds, seconds, frames):
    ready, forget, evaluate = QUESTIONS
    assert answer(ready, number, sent(messages.send_ready, number, [seconds, keys_seconds])) == [seconds, keys_seconds]
    assert answer(forget, number, sent(messages.send_forgotten, number)) is None
    result = Evaluated(frames, keys_seconds, seconds)
    assert answer(evaluate, number, sent(messages.send_result, number, result)) == result


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_that_may_be_told_is_told(kind):
    failure = answer(QUESTIONS[2], 7, sent(messages.send_result, 7, TaskFailure(kind("why"), "trace\nand more")))
    assert isinstance(failure, TaskFailure)
    assert (type(failure.error), str(failure.error), failure.trace) == (kind, "why", "trace\nand more")


class DerivedError(ResidueRangeError):
    pass


@pytest.mark.parametrize(
    ("error", "told"), [(DerivedError("x"), ResidueRangeError), (SettingError("x"), None), (None, None)]
)
def test_another_is_told_as_the_nearest_of_its_kinds_or_not_at_all(error, told):
    failure = answer(QUESTIONS[2], 7, sent(messages.send_result, 7, TaskFailure(error, "")))
    assert isinstance(failure.error, told) if told else failure.error is None


def test_what_a_failure_tells_is_cut_and_printable():
    failure = TaskFailure(BackendError("\x1b[31m" + "x" * 5000), "y" * 50_000 + "\x07 the end")
    told = answer(QUESTIONS[2], 7, sent(messages.send_result, 7, failure))
    assert len(str(told.error)) == TEXT_BYTES
    assert str(told.error).startswith("?[31mxx")
    assert len(told.trace) == TRACE_BYTES
    assert told.trace.endswith("? the end")


HEADS = st.tuples(
    st.integers(0, 255) | st.sampled_from(Kind),
    NUMBERS | st.just(7),
    st.floats(),
    st.floats(),
    st.integers(0, 255),
    st.integers(0, 2**32 - 1) | st.integers(0, 50),
    st.integers(0, 2**64 - 1) | st.just(LENGTH) | st.just(16),
)


@given(st.sampled_from(QUESTIONS), HEADS, st.binary(max_size=200))
def test_whatever_a_worker_sends_is_an_answer_or_ends_it(question, head, rest):
    replies = Replies(REPLY.pack(*head) + rest)
    try:
        found = Asked(question, 7).answer(replies.receive)
    except (ProtocolError, EOFError):
        found = None
    assert replies.most <= max(REPLY.size, TEXT_BYTES, TRACE_BYTES)
    if isinstance(found, Evaluated):
        assert head[1] == 7
        assert len(found.frames) == LENGTH
        assert all(math.isfinite(s) and 0 <= s <= SECONDS for s in (found.keys_seconds, found.evaluation_seconds))
    if isinstance(found, TaskFailure):
        assert type(found.error) in (type(None), *ERRORS)


WRONG = {
    "another number": REPLY.pack(Kind.EVALUATE, 8, 0, 0, 0, 0, LENGTH) + bytes(LENGTH),
    "another kind": REPLY.pack(Kind.FORGET, 7, 0, 0, 0, 0, 0),
    "a gigabyte": REPLY.pack(Kind.EVALUATE, 7, 0, 0, 0, 0, 1 << 30),
    "a byte too much": REPLY.pack(Kind.EVALUATE, 7, 0, 0, 0, 0, LENGTH + 1) + bytes(LENGTH + 1),
    "no time": REPLY.pack(Kind.EVALUATE, 7, math.nan, 0, 0, 0, LENGTH) + bytes(LENGTH),
    "an eternity": REPLY.pack(Kind.EVALUATE, 7, 0, math.inf, 0, 0, LENGTH) + bytes(LENGTH),
    "time that goes back": REPLY.pack(Kind.EVALUATE, 7, 0, -1.0, 0, 0, LENGTH) + bytes(LENGTH),
    "an error without a number": REPLY.pack(Kind.FAILED, 7, 0, 0, len(ERRORS) + 1, 0, 0),
    "a pickle": (p := pickle.dumps(FrameError)) + bytes(max(0, REPLY.size - len(p))),
    "a message of multiprocessing": struct.pack("!i", 100) + pickle.dumps(HeinferError("x")) + bytes(100),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_answer_is_taken_for_none(wrong):
    with pytest.raises(ProtocolError):
        Asked(QUESTIONS[2], 7).answer(Replies(WRONG[wrong]).receive)


def test_who_closes_in_the_middle_is_noticed():
    ours, theirs = socket.socketpair()
    with ours:
        theirs.sendall(bytes(REPLY.size - 1))
        theirs.close()
        with pytest.raises(EOFError):
            receive(ours, REPLY.size)
        with pytest.raises(EOFError):
            Asked(QUESTIONS[0], 1).answer(partial(receive, ours))
