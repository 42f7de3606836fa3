"""What every worker process is started with."""

from __future__ import annotations

import mmap
import os
import pickle
from collections.abc import Mapping

from heinfer_server.evaluation.tasks import Setup
from heinfer_server.models import ServedModel
from heinfer_server.sealed import open_sealed


class Handover:
    """The set-up in an anonymous file that no process can change, not even this one.

    Not an argument of the process, whose length the system bounds, and not sent to it, so that a process which is
    killed before it has read megabytes leaves nobody writing.

    Attributes:
        setup: what is handed over.
        descriptor: of the file, for reading.
        models: the versions, in the order of the set-up.
        output_lengths: bytes of an answer, by the digest of the version's manifest.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.descriptor = open_sealed("heinfer-setup", lambda file: pickle.dump(setup, file))
        self.models = tuple(map(ServedModel.of, setup.bundles))
        self.output_lengths: Mapping[str, int] = {model.digest: model.outputs_length for model in self.models}

    def close(self) -> None:
        """Let go of the file; no worker can be started afterwards."""
        os.close(self.descriptor)


def read_setup(descriptor: int) -> Setup:
    """What the parent process hands over: the only pickled bytes between the two, and they go to the worker."""
    with mmap.mmap(descriptor, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ) as file:
        setup: Setup = pickle.loads(file)  # noqa: S301 - it came from the service
    return setup
