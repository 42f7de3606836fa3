"""What every worker process is started with, where each can read it."""

from __future__ import annotations

import os
import pickle

from heinfer_server.evaluation.tasks import Setup


class Handover:
    """The set-up in an anonymous file of this process.

    Not an argument of the process: `multiprocessing` writes those to a pipe whose reading end it keeps open meanwhile,
    so that a process which is killed before it has read megabytes of them would leave who writes waiting for ever.

    Attributes:
        path: where another process of this user reads it.
    """

    def __init__(self, setup: Setup) -> None:
        self._descriptor = os.memfd_create("heinfer-setup", os.MFD_CLOEXEC)
        with open(self._descriptor, "wb", closefd=False) as file:
            pickle.dump(setup, file)
        self.path = f"/proc/{os.getpid()}/fd/{self._descriptor}"

    def close(self) -> None:
        """Let go of the file; no worker can be started afterwards."""
        os.close(self._descriptor)


def read_setup(path: str) -> Setup:
    """What a handover of the parent process holds."""
    with open(path, "rb") as file:  # noqa: PTH123 - what it holds came from our own process
        setup: Setup = pickle.load(file)  # noqa: S301
    return setup
