"""The memory that a worker process takes once its models are loaded, as a bound that it sets itself."""

from __future__ import annotations

from collections.abc import Mapping

from heinfer.backends import NativeOptions
from heinfer_server.models import Models

_SLACK = 1 << 29
"""What fragments, what the interpreter takes, and what is predicted too low: a bound is to stop who takes gigabytes."""

_SHARE = 1.25
_COPIES = 4
"""Of a frame, at most, while it is received, decoded and loaded."""


def worker_bytes(models: Models, backend: str, options: Mapping[str, NativeOptions], most_keys: int) -> int:
    """What a worker may take beside its models: loaded keys, intermediate results, and frames on their way.

    Args:
        options: of each version of a model, by its digest.
        most_keys: clients whose keys it keeps loaded.
    """
    keys = max((model.loaded_key_bytes(backend) for model in models), default=0)
    running = max((model.memory(backend, options[model.digest]).ciphertexts for model in models), default=0)
    frames = max((max(m.keys.length, m.inputs_length + m.outputs_length) for m in models), default=0)
    return _SLACK + int(_SHARE * ((most_keys + 1) * keys + running)) + _COPIES * frames


def largest_file(models: Models, backend: str) -> int:
    """Bytes of the largest anonymous file that a worker writes: SEAL's objects pass through one."""
    if backend == "native":
        return 0
    return 2 * max((model.loaded_key_bytes(backend) + model.outputs_length for model in models), default=0)
