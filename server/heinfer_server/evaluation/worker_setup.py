"""Setup data of worker processes."""

from __future__ import annotations

import mmap
import os
import pickle
from collections.abc import Mapping

from heinfer_server.evaluation.tasks import Setup
from heinfer_server.sealed import open_sealed


class WorkerSetup:
    """The setup in a sealed anonymous file, which no process can change, not even this one.

    It is no argument of the process, because the system bounds their length, and it is not sent, because a process that
    is killed before it has read megabytes would leave the service writing.

    Attributes:
        descriptor: of the file, read-only.
        models: the versions, in the order of the setup.
        output_lengths: bytes of an answer, by the digest of the version's manifest.
    """

    def __init__(self, setup: Setup) -> None:
        self.descriptor = open_sealed("heinfer-setup", lambda file: pickle.dump(setup, file))
        self.models = setup.models
        self.output_lengths: Mapping[str, int] = {model.digest: model.outputs_length for model in setup.models}

    def close(self) -> None:
        """Close the file; no worker can be started afterwards."""
        os.close(self.descriptor)


def read_setup(descriptor: int) -> Setup:
    """Read the setup in a worker: the only pickled bytes between the two processes, from the service to the worker."""
    with mmap.mmap(descriptor, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ) as file:
        setup: Setup = pickle.loads(file)  # noqa: S301 - it came from the service
    return setup
