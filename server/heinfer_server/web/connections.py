"""HTTP connections within bounds: how long a head and the taking of an answer may take, and how many there may be."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from math import inf
from typing import cast

import h11
from starlette.responses import Response
from uvicorn.protocols.http.h11_impl import H11Protocol

from heinfer_server.errors import HeadTooLargeError
from heinfer_server.telemetry.logs import error_code, error_reason, log
from heinfer_server.web.problems import malformed_problem, problem_of

_logger = logging.getLogger(__name__)

_of_uvicorn = logging.getLogger(f"{__name__}.uvicorn")
_of_uvicorn.setLevel(logging.ERROR)  # what it warns of has a line of our own, or is any sender's to cause

HEAD_SECONDS = 15.0
"""As long as a connection is kept that waits for its next request."""

ANSWER_SECONDS_PER_MIB = 30.0
"""For each started MiB of an answer that the client has yet to take."""

MAX_HEAD_BYTES = 1 << 14
"""Of a request, and of what may follow a body in chunks."""

_HEAD_END = re.compile(rb"\n\r?\n")  # as h11 finds it
_LAST_CHUNK = re.compile(rb"(\r\n)?0+(;[^\n]*)?[ \t]*\r\n")
_SPARE_CHUNKS = 64
_LEAST_CHUNK = 1024


class _Parser(h11.Connection):
    """h11's, within bounds: what has been read is parsed before anybody else's turn comes.

    A buffer full of headers of five bytes, or of chunks of one, would take a quarter of a second.

    Attributes:
        refusal: makes the answer, by the request's id, to what is beyond them; None where h11 itself found a fault.
    """

    refusal: Callable[[str], Response] | None = None
    _chunks = _bytes = 0
    _is_before_chunk = False

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        if self.their_state is h11.IDLE or self._is_before_chunk:  # else it would copy the buffer for nothing
            self._require_end_of_head()
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._chunks = self._bytes = 0
            self._is_before_chunk = any(name == b"transfer-encoding" for name, _ in event.headers)
        elif isinstance(event, h11.EndOfMessage):
            self._is_before_chunk = False
        elif isinstance(event, h11.Data):
            self._is_before_chunk = event.chunk_end
            self._bytes += len(event.data)
            self._chunks += event.chunk_start
            if self._chunks > _SPARE_CHUNKS + self._bytes // _LEAST_CHUNK:
                text = f"the chunks of this body are too small: send {_LEAST_CHUNK} bytes or more in each"
                self.refusal = partial(malformed_problem, text)
                raise h11.RemoteProtocolError(text)
        return event

    def _require_end_of_head(self) -> None:
        """What h11 itself does only when no end of it has come at all. Headers after the last chunk are one as well."""
        data, _ = self.trailing_data
        begins = 0
        if self._is_before_chunk:
            last = _LAST_CHUNK.match(data)
            if last is None:
                return
            begins = last.end() - 1  # with the line's end, that none may follow
        if len(data) - begins > MAX_HEAD_BYTES and not _HEAD_END.search(data, begins, begins + MAX_HEAD_BYTES):
            text = f"method, path, query and headers may have {MAX_HEAD_BYTES} bytes: send fewer headers"
            self.refusal = partial(problem_of, HeadTooLargeError(text))
            raise h11.RemoteProtocolError(text)


class BoundedProtocol(H11Protocol):
    """Closes a connection whose next request does not start in time, or whose answers are not taken.

    Where one is too many, that goes which has been idle longest. uvicorn waits for ever for the rest of a head, and for
    a client that does not read: a few hundred such connections would be all that the process may have. It must be h11's
    protocol: the other one, taken if httptools is there, has no bound for the head's length.
    """

    conn: _Parser
    _head_timer: asyncio.TimerHandle | None = None
    _answer_timer: asyncio.TimerHandle | None = None

    def most(self) -> int:
        """How many connections there may be."""
        return 1 << 16

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.conn = _Parser(h11.SERVER, 2 * MAX_HEAD_BYTES)  # it finds out itself, and after this one
        self.logger = _of_uvicorn
        super().connection_made(cast("asyncio.Transport", transport))
        self.transport.set_write_buffer_limits(high=0)  # writing pauses whenever, and as long as, a byte waits
        idle = self._longest_idle() if len(self.connections) > self.most() else None
        self._time_head()
        if idle is not None:
            idle._leave()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._time_head()

    def pause_writing(self) -> None:
        super().pause_writing()
        seconds = ANSWER_SECONDS_PER_MIB * (1 + (self.transport.get_write_buffer_size() >> 20))
        self._answer_timer = self.loop.call_later(seconds, self.transport.abort)

    def resume_writing(self) -> None:
        self._stop_answer_timer()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP as every other error, and close; only close when an answer has begun or gone out."""
        is_head_method = False
        if self.cycle is not None and not self.cycle.response_complete:
            is_head_method = self.scope["method"] == "HEAD"
            self.cycle.disconnected = True  # what waits for the rest of its body shall not answer as well
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            answer = (self.conn.refusal or partial(malformed_problem, msg))(secrets.token_hex(8))
            peer = self.client[0] if self.client else None
            code, why = error_code.get(), error_reason.get()
            log(_logger, logging.INFO, "no request", status=answer.status_code, code=code, reason=why, peer=peer)
            headers = [*answer.raw_headers, (b"connection", b"close")]
            reason = HTTPStatus(answer.status_code).phrase.encode()
            head = h11.Response(status_code=answer.status_code, headers=headers, reason=reason)
            body = () if is_head_method else (h11.Data(data=bytes(answer.body)),)
            for event in (head, *body, h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self._stop_answer_timer()
        super().connection_lost(exc)

    def _leave(self) -> None:
        """Close the connection at once, and make room for another, although it takes a while to be over."""
        self.connections.discard(self)
        self.transport.abort()

    def _longest_idle(self) -> BoundedProtocol:
        """Of all connections, the one that has waited longest for a request; this one where none waits."""
        waiting = [one for one in self.connections if isinstance(one, BoundedProtocol) and one._idle_until < inf]
        return min(waiting, key=lambda one: one._idle_until, default=self)

    @property
    def _idle_until(self) -> float:
        """When it will be closed for want of a request; both clocks run as long. Infinity while one is under way."""
        timer = self._head_timer or self.timeout_keep_alive_task
        return inf if timer is None else timer.when()

    def _time_head(self) -> None:
        """Start the clock at the first byte of a head, and never again at a later one."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_head_timer()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self.timeout_keep_alive_handler)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_answer_timer(self) -> None:
        if self._answer_timer is not None:
            self._answer_timer.cancel()
            self._answer_timer = None
