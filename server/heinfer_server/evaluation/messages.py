"""What passes between the service and a worker, as bytes: fixed heads that say how long the rest is, and no objects.

The service trusts no worker: code that took one over may send anything. So a reply is read by what was asked
(questions.py), and everything in it has a bound. A request carries a number that nobody can guess and its reply repeats
it: who has not read a request cannot answer it.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from heinfer.errors import (
    BackendError,
    CancelledError,
    CiphertextMismatchError,
    FormatError,
    FrameBindingError,
    FrameError,
    FrameLengthError,
    HeinferError,
    KeySetError,
    MissingKeyError,
    NewerFormatError,
    ResidueRangeError,
)
from heinfer_server.evaluation.tasks import Evaluated, EvaluationTask, TaskFailure
from heinfer_server.keys.frame_file import FrameFile

TEXT_BYTES = 1000
"""Of an error's message, at most."""

TRACE_BYTES = 16_000
"""Of a trace, at most; the end of a longer one is what counts."""

ERRORS: tuple[type[HeinferError], ...] = (
    BackendError,
    CancelledError,
    MissingKeyError,
    FormatError,
    NewerFormatError,
    FrameError,
    FrameLengthError,
    FrameBindingError,
    ResidueRangeError,
    CiphertextMismatchError,
    KeySetError,
)
"""What an evaluation may fail with for a reason that the client may know, by the number in a reply less 1."""


class Kind(IntEnum):
    """Of a request, and of the reply to it; an evaluation may be answered by FAILED instead."""

    READY = 1
    FORGET = 2
    EVALUATE = 3
    FAILED = 4


REQUEST = struct.Struct("<BQq32s32s?IQQ")
"""Kind, number, watched evaluation, manifest, key id, whether keys come, ids to forget, bytes of keys, of inputs."""

REPLY = struct.Struct("<BQddBIQ")
"""Kind, number, seconds for keys, of the evaluation, error, bytes of its text, bytes after that."""

_ID = 32
_DESCRIPTOR = struct.Struct("i")


class ProtocolError(Exception):
    """The other side does not keep to what is written here."""


@dataclass(frozen=True)
class Request:
    """What a worker is asked: the task of an evaluation, or ids of keys to let go of, or none of them."""

    kind: Kind
    number: int
    task: EvaluationTask | None = None
    forget: tuple[str, ...] = ()

    def send(self, to: socket.socket) -> None:
        """Write it; OSError when the other end is gone."""
        fields: tuple[object, ...] = (0, bytes(_ID), bytes(_ID), False, len(self.forget), 0, 0)
        keys, inputs = None, b""
        if self.task is not None:
            keys, inputs = self.task.keys, self.task.inputs
            manifest, key_id = bytes.fromhex(self.task.manifest), bytes.fromhex(self.task.key_id)
            length = keys.length if keys is not None else 0
            fields = self.task.number, manifest, key_id, keys is not None, 0, length, len(inputs)
        head = REQUEST.pack(self.kind, self.number, *fields) + b"".join(map(bytes.fromhex, self.forget))
        sent = socket.send_fds(to, [head], [] if keys is None else [keys.fileno()])
        to.sendall(memoryview(head)[sent:])
        to.sendall(inputs)


def receive_request(pipe: socket.socket) -> Request:
    """Wait for a request; EOFError when the other end is closed."""
    head, ancillary, _, _ = pipe.recvmsg(REQUEST.size, socket.CMSG_SPACE(_DESCRIPTOR.size), socket.MSG_CMSG_CLOEXEC)
    descriptors = [_DESCRIPTOR.unpack(data)[0] for *_, data in ancillary]
    head += receive(pipe, REQUEST.size - len(head))
    kind, number, watched, manifest, key_id, has_keys, forget, keys_length, length = REQUEST.unpack(head)
    if kind != Kind.EVALUATE:
        return Request(Kind(kind), number, None, tuple(receive(pipe, _ID).hex() for _ in range(forget)))
    keys = FrameFile(descriptors[0], keys_length) if has_keys else None
    task = EvaluationTask(manifest.hex(), key_id.hex(), keys, receive(pipe, length), watched)
    return Request(Kind.EVALUATE, number, task)


def receive(pipe: socket.socket, length: int) -> bytes:
    """Exactly so many bytes; EOFError when the other end is closed before."""
    data = bytearray(length)
    rest = memoryview(data)
    while rest:
        got = pipe.recv_into(rest)
        if not got:
            raise EOFError
        rest = rest[got:]
    return bytes(data)


# Replies, in the worker --------------------------------------------------------------------------


def send_ready(pipe: socket.socket, number: int, seconds: Sequence[float]) -> None:
    """Say how long each version of a model took to load, in the order of the set-up."""
    body = struct.pack(f"<{len(seconds)}d", *seconds)
    pipe.sendall(REPLY.pack(Kind.READY, number, 0.0, 0.0, 0, 0, len(body)) + body)


def send_forgotten(pipe: socket.socket, number: int) -> None:
    """Say that keys are gone."""
    pipe.sendall(REPLY.pack(Kind.FORGET, number, 0.0, 0.0, 0, 0, 0))


def send_result(pipe: socket.socket, number: int, result: Evaluated | TaskFailure) -> None:
    """Say what became of an evaluation."""
    if isinstance(result, Evaluated):
        seconds = result.keys_seconds, result.evaluation_seconds
        pipe.sendall(REPLY.pack(Kind.EVALUATE, number, *seconds, 0, 0, len(result.frames)))
        pipe.sendall(result.frames)
        return
    error, text = _told(result.error)
    trace = result.trace.encode(errors="replace")[-TRACE_BYTES:]
    pipe.sendall(REPLY.pack(Kind.FAILED, number, 0.0, 0.0, error, len(text), len(trace)) + text + trace)


def _told(error: HeinferError | None) -> tuple[int, bytes]:
    """Number and text of an error; that of the nearest of its kinds that has a number."""
    for kind in type(error).__mro__:
        if kind in ERRORS:
            return ERRORS.index(kind) + 1, str(error).encode(errors="replace")[:TEXT_BYTES]
    return 0, b""
