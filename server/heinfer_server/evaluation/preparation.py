"""What workers only read is written before they are there, by a process that sees no client's byte and ends then."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace

from heinfer.backends import NativeOptions
from heinfer.errors import WorkerFailedError
from heinfer_server.evaluation.process import AnsweringProcess, LostError
from heinfer_server.evaluation.questions import Ready
from heinfer_server.evaluation.tasks import Setup
from heinfer_server.evaluation.worker_setup import WorkerSetup
from heinfer_server.telemetry.logs import log

_logger = logging.getLogger(__name__)

_SECONDS = 600.0


def only_read(options: Mapping[str, NativeOptions]) -> Mapping[str, NativeOptions]:
    """The same, of processes that save nothing."""
    return {manifest: replace(option, saves_constants=False) for manifest, option in options.items()}


async def prepare(setup: Setup) -> None:
    """Have the models loaded once, and what they are encoded to saved.

    Raises:
        WorkerFailedError: when that fails.
    """
    handed = WorkerSetup(setup)
    process = AnsweringProcess(handed.descriptor)
    try:
        await process.start()
        async with asyncio.timeout(_SECONDS):
            await process.ask(Ready(len(handed.models), _SECONDS))
    except (LostError, TimeoutError, OSError, RuntimeError) as error:
        log(_logger, logging.ERROR, "constants not encoded", reason=str(error))
        raise WorkerFailedError("the models' constants could not be encoded and kept: the log has more") from error
    finally:
        await process.end()
        handed.close()
