"""What a worker process runs."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys

from heinfer_server.evaluation.evaluator import Evaluator
from heinfer_server.evaluation.handover import read_setup
from heinfer_server.evaluation.messages import Kind, receive_request, send_forgotten, send_ready, send_result
from heinfer_server.evaluation.watching import Watcher, open_cell

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def serve(setup: int, cell: int, pipe: socket.socket) -> None:
    """Load the models that are handed over, and answer until the other end is closed; what fails beside ends this."""
    evaluator = Evaluator(read_setup(setup))
    evaluator.watcher = Watcher(open_cell(cell))
    for descriptor in (setup, cell):
        os.close(descriptor)
    while True:
        try:
            request = receive_request(pipe)
        except EOFError:
            return
        if request.task is not None:
            send_result(pipe, request.number, evaluator.run(request.task))
        elif request.kind == Kind.FORGET:
            evaluator.forget(request.forget)
            send_forgotten(pipe, request.number)
        else:
            send_ready(pipe, request.number, evaluator.load_seconds)


def main(setup: str, cell: str, pipe: str, parent: str) -> None:
    """Serve, on descriptors of these numbers; the last number is the process id of the service."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all: the service ends its workers
    _die_with(int(parent))
    serve(int(setup), int(cell), socket.socket(fileno=int(pipe)))


def _die_with(parent: int) -> None:
    """Leave nothing behind when the service is killed, not even a worker that is stopped or in an evaluation.

    The kernel sends the signal when the thread that made this process ends: one of the event loop's own, which last as
    long as the service.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before
        os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
