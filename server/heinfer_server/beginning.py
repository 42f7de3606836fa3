"""What holds from the first moment of the process, before anything that takes long is imported."""

from __future__ import annotations

import os
import signal


def leave_signals() -> None:
    """Heed no SIGHUP, since nothing has been read yet that might have changed, and SIGTERM in any case."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if os.getpid() == 1:  # of a container: the kernel ends it by no signal that it does not handle
        signal.signal(signal.SIGTERM, lambda number, _frame: os._exit(128 + number))
