"""A service of one's own: a process on a free loopback port, for as long as it is needed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from heinfer.errors import ServiceUnavailableError

_STOP_SECONDS = 15


@contextmanager
def local_server(bundle: Path, backend: str = "auto", threads: int = 1, **others: object) -> Iterator[str]:
    """Run `python -m heinfer_server` with one worker on a backend and yield its URL; the process is gone afterwards.

    `others` are settings of the service, by their names.

    Raises:
        ServiceUnavailableError: when it does not start; says why.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HEINFER_SERVER_")}
    settings = {"host": "127.0.0.1", "port": "0", "no_auth": "1", "workers": "1", "bundles": str(bundle)}
    settings |= {"backend": backend, "threads": str(threads)}
    settings |= {name: str(value) for name, value in others.items()}
    environment |= {f"HEINFER_SERVER_{name.upper()}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "heinfer_server"]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(  # noqa: S603 - this interpreter, our own module
            command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        )
        try:
            yield _url(process, log.fileno())
        finally:
            _stop(process)


def _url(process: subprocess.Popen[str], log: int) -> str:
    """Wait until the service says where it is."""
    assert process.stdout is not None
    ready = re.search(r"http://\S+", process.stdout.readline())
    if ready is None:
        process.wait()
        last = os.pread(log, 1 << 16, 0).decode(errors="replace").strip().splitlines()[-1:]
        raise ServiceUnavailableError(f"the server process did not start: {last[0] if last else 'it said nothing'}")
    return ready[0]


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert process.stdout is not None
    process.stdout.close()
