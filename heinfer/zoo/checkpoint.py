"""Checkpoints: tensors in a safetensors file, what they belong to as JSON in its header. No pickle anywhere."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor, nn

from heinfer.errors import DataError

_KEY = "heinfer"


@dataclass(frozen=True)
class Metadata:
    """What a trained network's file says of it.

    Attributes:
        name: of the reference network.
        seed: that the training started from.
        epochs: that the last stage of training took.
        images: how many it was trained on.
        recipe: of all stages, spelled out.
        held_out_accuracy: share of the held-out images classified correctly, in [0, 1]; None when trained on them.
        test_accuracy: the same of the test images.
        seconds: that the last stage took, interrupted runs included.
        structure: description of every layer by its path, for people: the wording is the torch version's.
        ranges: the largest |value| on the training images, by tensor: ``input`` and each layer's output by its path.
        device: that the last stage was trained on, such as ``cpu`` or ``cuda``.
    """

    name: str
    seed: int
    epochs: int
    images: int
    recipe: str
    held_out_accuracy: float | None
    test_accuracy: float
    seconds: float
    structure: Mapping[str, str]
    ranges: Mapping[str, float]
    device: str = "cpu"


def save_network(path: Path, module: nn.Module, metadata: Metadata) -> None:
    """Write a trained network; a reader sees the old file or the new one, never a part."""
    write_tensors(path, module.state_dict(), json.dumps(asdict(metadata)))


def load_network(path: Path, name: str, module: nn.Module) -> Metadata:
    """Put a file's tensors into ``module``; DataError when it is unreadable or holds no network ``name``."""
    tensors, header = read_tensors(path)
    metadata = _metadata(path, header)
    if metadata.name != name:
        raise DataError(f"{path} holds {metadata.name}, not {name}: give that network's own file")
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise DataError(f"{path} holds {name} in another structure than this version's: train it again") from error
    return metadata


def read_metadata(path: Path) -> Metadata:
    """Return what the file says of its network; DataError when it is unreadable."""
    return _metadata(path, read_tensors(path)[1])


def structure(module: nn.Module) -> dict[str, str]:
    """Describe every layer (module without parts of its own) by its path."""
    return {path: repr(part) for path, part in module.named_modules() if not list(part.children())}


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: str) -> None:
    """Write tensors and one JSON text, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = safetensors.torch.save({name: t.contiguous() for name, t in tensors.items()}, {_KEY: header})
    handle, temporary = tempfile.mkstemp(prefix=path.name, suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_tensors(path: Path) -> tuple[dict[str, Tensor], str]:
    """Read what ``write_tensors`` wrote; DataError when there is no such file, or another kind of it."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = (file.metadata() or {})[_KEY]
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118 - not a dict
    except (OSError, KeyError, safetensors.SafetensorError) as error:
        raise DataError(f"{path} is no checkpoint of heinfer ({type(error).__name__}): train the network first") from (
            error
        )


def _metadata(path: Path, header: str) -> Metadata:
    try:
        return Metadata(**json.loads(header))
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} is no checkpoint of this version of heinfer: train the network again") from error
