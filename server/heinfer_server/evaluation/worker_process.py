"""What a worker process runs."""

from __future__ import annotations

import ctypes
import os
import socket
import sys
from typing import NoReturn

from heinfer_server.evaluation.evaluator import Evaluator
from heinfer_server.evaluation.messages import Kind, receive_request, send_forgotten, send_ready, send_result
from heinfer_server.evaluation.progress import Cell, Watcher
from heinfer_server.evaluation.signals import leave_to_the_service
from heinfer_server.evaluation.worker_setup import read_setup
from heinfer_server.isolation.privileges import die_with


def serve(setup: int, cell: int, pipe: socket.socket) -> NoReturn:
    """Load the models that are handed over, shut oneself in, and answer until the other end is closed.

    What fails ends the process, but for what an evaluation fails with.
    """
    handed = read_setup(setup)
    evaluator, shared, confinement = Evaluator(handed), Cell(cell), handed.confinement
    del handed
    _give_back_freed()
    if confinement is not None:
        confinement.enter(pipe.fileno())
    evaluator.watcher = Watcher(shared)
    if confinement is not None:
        confinement.lock()
    while True:
        try:
            request = receive_request(pipe)
        except EOFError:  # what the interpreter does at its end, it may not do any more
            os._exit(0)
        if request.task is not None:
            send_result(pipe, request.number, evaluator.run(request.task))
        elif request.kind == Kind.FORGET:
            evaluator.forget(request.forget)
            send_forgotten(pipe, request.number)
        else:
            send_ready(pipe, request.number, evaluator.load_seconds)


def _give_back_freed() -> None:
    """Have the C library give freed memory back: weights before they were loaded are in pieces that it would keep.

    Other C libraries than glibc have no such call.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)


def main(setup: str, cell: str, pipe: str, parent: str) -> None:
    """Serve, on descriptors of these numbers; the last number is the process id of the service."""
    leave_to_the_service()
    die_with(int(parent))  # not even a worker that is stopped, or in an evaluation, outlives the service
    serve(int(setup), int(cell), socket.socket(fileno=int(pipe)))


if __name__ == "__main__":
    main(*sys.argv[1:])
