"""Work in the background that goes on whatever happens in it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

_logger = logging.getLogger(__name__)

PAUSE_SECONDS = 5.0


async def for_ever(work: Callable[[], Awaitable[None]]) -> None:
    """Do work again and again; where it fails, for want of memory say, after a line in the log and a pause."""
    while True:
        try:
            await work()
        except Exception:
            name = getattr(work, "__name__", "")
            _logger.exception("background work failed", extra={"facts": {"work": name}})
            await asyncio.sleep(PAUSE_SECONDS)
