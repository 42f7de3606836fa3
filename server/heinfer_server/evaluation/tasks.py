"""What passes between the service and a worker process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from heinfer.backends import NativeOptions
from heinfer.errors import HeinferError
from heinfer_server.isolation.confinement import Confinement
from heinfer_server.keys.frame_file import FrameFile
from heinfer_server.models import ServedModel


@dataclass(frozen=True)
class Setup:
    """What a worker process is started with.

    Attributes:
        models: every version.
        backend: one that heinfer.backends.choose_backend named.
        options: of the native backend, for every version by its digest; by default its own.
        confinement: what is left to the process once it has loaded them; None for everything.
    """

    models: tuple[ServedModel, ...]
    backend: str
    options: Mapping[str, NativeOptions] = field(default_factory=dict)
    confinement: Confinement | None = None


@dataclass(frozen=True)
class EvaluationTask:
    """One request to evaluate.

    Attributes:
        manifest: digest of that of a model that the worker loaded at its start.
        key_id: under which the worker keeps loaded keys.
        keys: a frame of them, to load under that id first; None when the worker holds them.
        inputs: the frame of input ciphertexts that came and was found to be right.
        number: under which the shared cell tells of it; 0 when nobody watches.
    """

    manifest: str
    key_id: str
    keys: FrameFile | None
    inputs: bytes
    number: int = 0


@dataclass(frozen=True)
class Evaluated:
    """The result of a request.

    Attributes:
        frames: the output ciphertexts, as the client gets them.
        keys_seconds: loading the keys, when that was needed.
        evaluation_seconds: from loaded inputs and keys to result ciphertexts.
    """

    frames: bytes
    keys_seconds: float
    evaluation_seconds: float


@dataclass(frozen=True)
class TaskFailure:
    """A request that failed in a worker which lives on.

    Attributes:
        error: what may be told to the client; None when nothing may.
        trace: for the log.
    """

    error: HeinferError | None
    trace: str
