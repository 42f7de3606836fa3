"""Structured logs: one JSON object a line, never a payload, a key or a key id.

Whoever sends requests decides how many lines there are: so there are bounds for each kind of line
(:mod:`heinfer_server.telemetry.repetitions`), and nobody who logs waits for who reads (:mod:`.writing`).
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TypeAlias

from heinfer_server.telemetry.repetitions import Kind, Repeated, Repetitions, bare
from heinfer_server.telemetry.writing import LineWriter

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""Id of the request that is being answered; every line logged meanwhile carries it."""

tenant_name: ContextVar[str] = ContextVar("tenant_name", default="")
"""Name of the tenant whose request is being answered."""

peer: ContextVar[str | None] = ContextVar("peer", default=None)
"""Address that the request came from; None for one that has none."""

error_code: ContextVar[str] = ContextVar("error_code", default="")
"""Code of the problem that answers the request, if one does."""

error_reason: ContextVar[str] = ContextVar("error_reason", default="")
"""Why it does, for the log."""

Fact: TypeAlias = str | int | float | None

OUTSIDE_LINES = 20
OUTSIDE_LINES_A_MINUTE = 60.0
"""Of each kind that somebody may cause who has no API key: so many at once, and then a minute."""

OWN_LINES = 1000
OWN_LINES_A_MINUTE = 600.0
"""Of each kind that the service logs of its own: as many as a start of many workers with many models has."""

_SUMMARY_SECONDS = 10.0
_FLUSH_SECONDS = 1.0
_STANDARD_ERROR = 2
_OWN = __name__.partition(".")[0]
_TOLD_APART_BY = ("code", "status", "route")


def log(logger: logging.Logger, level: int, event: str, **facts: Fact) -> None:
    """Log an event with facts about it."""
    logger.log(level, event, extra={"facts": facts})


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Fact] = {
            "time": _written(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        if request_id.get():
            line["request_id"] = request_id.get()
            line["peer"] = peer.get()
        if tenant_name.get():
            line["tenant"] = tenant_name.get()
        line.update(getattr(record, "facts", {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


class BoundedHandler(logging.Handler):
    """Writes lines as JSON to a descriptor: of each kind so many, then how many there were.

    Args:
        descriptor: to write to.
        tenant_lines: of each kind that the requests of one tenant cause, in a minute: as many as it may send. At once
            it may be twice as many, because requests that came one after the other may end together.
    """

    def __init__(self, descriptor: int, tenant_lines: float) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self._outside = Repetitions(OUTSIDE_LINES, OUTSIDE_LINES_A_MINUTE)
        self._tenants = Repetitions(2 * tenant_lines, tenant_lines)
        self._own = Repetitions(OWN_LINES, OWN_LINES_A_MINUTE)
        self._summary_due = 0.0
        self._writer = LineWriter(descriptor, self._tick, _SUMMARY_SECONDS)

    def emit(self, record: logging.LogRecord) -> None:
        if self._of(record).passes(_kind(record), time.monotonic()):
            try:
                line = self.format(record)
            except Exception:  # facts that are none, of others say: better less of a line than an error more
                line = _line(record.levelname.lower(), record.name, bare(record.msg))
            self._put(line)
        self._summarise()

    def flush(self) -> None:
        """Say what was left out, and wait a little until all is written."""
        with self._held():
            self._summarise(at_once=True)
        self._writer.flush(_FLUSH_SECONDS)

    def close(self) -> None:
        self.flush()
        super().close()

    def _of(self, record: logging.LogRecord) -> Repetitions:
        if tenant_name.get():
            return self._tenants
        is_own = record.name.partition(".")[0] == _OWN
        return self._own if is_own and not _comes_from_outside(record) else self._outside

    @contextmanager
    def _held(self, *, blocking: bool = True) -> Iterator[bool]:
        assert self.lock is not None  # logging makes one for every handler
        is_held = self.lock.acquire(blocking=blocking)
        try:
            yield is_held
        finally:
            if is_held:
                self.lock.release()

    def _tick(self) -> None:
        """From the writer's thread: nobody may log for long."""
        with self._held(blocking=False) as is_held:
            if is_held:
                self._summarise()
                self._tell_of_lost()

    def _summarise(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if now < self._summary_due and not at_once:
            return
        self._summary_due = now + _SUMMARY_SECONDS
        for repetitions in (self._outside, self._tenants, self._own):
            for repeated in repetitions.take():
                self._put(_summary(repeated))

    def _put(self, line: str) -> None:
        self._tell_of_lost()
        self._writer.put(line)

    def _tell_of_lost(self) -> None:
        lost = self._writer.take_lost()
        if lost:
            self._writer.put(_line("warning", __name__, "lines lost", lines=lost))


def configure_logging(tenant_lines: float) -> None:
    """Send everything that is logged in this process to standard error, as JSON, within bounds.

    Args:
        tenant_lines: as BoundedHandler has it.
    """
    logging.basicConfig(level=logging.INFO, handlers=[BoundedHandler(_STANDARD_ERROR, tenant_lines)], force=True)


def flush_logs() -> None:
    """Wait a little until all is written that was logged: for who is about to end without Python's own end."""
    for handler in logging.getLogger().handlers:
        handler.flush()


def _comes_from_outside(record: logging.LogRecord) -> bool:
    return bool(request_id.get()) or "peer" in getattr(record, "facts", {})


def _kind(record: logging.LogRecord) -> Kind:
    """What lines are told apart by; nothing in it is of a sender's making."""
    facts = getattr(record, "facts", None)
    event = bare(record.msg) if facts is None else str(record.msg)
    if record.exc_info and record.exc_info[0]:
        event += f" ({record.exc_info[0].__name__})"
    told = tuple((facts or {}).get(name) for name in _TOLD_APART_BY)
    return Kind(record.levelname.lower(), record.name, event, tenant_name.get(), told)


def _summary(repeated: Repeated) -> str:
    kind = repeated.kind
    told: dict[str, Fact] = {
        name: value for name, value in zip(_TOLD_APART_BY, kind.told, strict=False) if value is not None
    }
    if kind.tenant:
        told["tenant"] = kind.tenant
    since = _written(time.time() - (time.monotonic() - repeated.since))
    return _line(kind.level, kind.logger, "repeated", what=kind.event, **told, lines=repeated.lines, since=since)


def _line(level: str, logger: str, event: str, **facts: Fact) -> str:
    return json.dumps({"time": _written(time.time()), "level": level, "logger": logger, "event": event, **facts})


def _written(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
