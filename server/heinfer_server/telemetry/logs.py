"""Structured logs: one JSON object a line, never a payload, a key or a key id."""

from __future__ import annotations

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TypeAlias

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""Id of the request that is being answered; every line logged meanwhile carries it."""

tenant_name: ContextVar[str] = ContextVar("tenant_name", default="")
"""Name of the tenant whose request is being answered."""

error_code: ContextVar[str] = ContextVar("error_code", default="")
"""Code of the problem that answers the request, if one does."""

Fact: TypeAlias = str | int | float | None


def log(logger: logging.Logger, level: int, event: str, **facts: Fact) -> None:
    """Log an event with facts about it."""
    logger.log(level, event, extra={"facts": facts})


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Fact] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        if request_id.get():
            line["request_id"] = request_id.get()
        if tenant_name.get():
            line["tenant"] = tenant_name.get()
        line.update(getattr(record, "facts", {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure_logging() -> None:
    """Send everything that is logged in this process to standard error, as JSON."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
