"""HTTP connections within bounds: how long a head and the taking of an answer may take, and how many there may be."""

from __future__ import annotations

import asyncio
import resource
import secrets
from typing import cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from heinfer_server.web.problems import malformed_problem

HEAD_SECONDS = 15.0

ANSWER_SECONDS_PER_MIB = 30.0
"""For each started MiB of an answer that the client has yet to take."""

BACKLOG = 64
"""Connections that wait to be accepted; asyncio accepts as many at once, before it tells a protocol of the first."""

_SPARE_FILES = 6 * BACKLOG
"""Of the files that the process may open: for connections on the way in or out, the pipes to its workers, the rest."""


class BoundedProtocol(H11Protocol):
    """Closes a connection whose next request does not start in time, or whose answers are not taken, or one too many.

    uvicorn waits for ever for the rest of a head, and for a client that does not read: a few hundred such connections
    would be all that the process may have. It must be h11's protocol: the other one, taken if httptools is there, has
    no bound for the head's length.
    """

    _head_timer: asyncio.TimerHandle | None = None
    _answer_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast("asyncio.Transport", transport))
        if len(self.connections) > _most_connections():
            self.transport.abort()
        else:
            self.transport.set_write_buffer_limits(high=0)  # writing pauses whenever, and as long as, a byte waits
            self._time_head()

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
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # what waits for the rest of its body shall not answer as well
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            answer = malformed_problem(msg, secrets.token_hex(8))
            headers = [*answer.raw_headers, (b"connection", b"close")]
            head = h11.Response(status_code=answer.status_code, headers=headers, reason=b"Bad Request")
            for event in (head, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self._stop_answer_timer()
        super().connection_lost(exc)

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


def _most_connections() -> int:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 16 if files == resource.RLIM_INFINITY else max(files - _SPARE_FILES, files // 2)
