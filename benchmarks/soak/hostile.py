"""Hostile code in the workers of a service: put where their interpreters find it, and woken by marked requests."""

from __future__ import annotations

import json
import platform
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from heinfer.formats.bundle import Bundle
from heinfer.formats.frame_fields import ciphertext_fields
from heinfer_server.isolation.calls import NUMBERS

CODE = Path(__file__).parents[2] / "tests" / "support" / "hostile_worker"

FAILS = ("files", "looking", "proc", "memory_of_others", "signals", "programs", "network", "rights", "memory")
"""What the worker goes on after: every attempt is refused."""

ENDS = ("huge_reply", "long_text", "pickled", "pickled_alone", "another_number", "short_reply", "no_time", "dies")
"""What ends the worker."""


@dataclass(frozen=True)
class Place:
    """Where the service is that is attacked.

    Attributes:
        folder: that may be written by whoever is not shut in.
        tenants, keys, constants: its file and folders.
        bundle: that it serves.
        port, metrics_port: at which it listens.
        abstract: name of a socket that somebody listens at.
        inputs: a frame of good inputs.
    """

    folder: Path
    tenants: Path
    keys: Path
    constants: Path
    bundle: Path
    port: int
    metrics_port: int
    abstract: str
    inputs: bytes


def put(place: Place) -> Path:
    """Make the folder that PYTHONPATH has to begin with when the service is started."""
    code = place.folder / "code"
    code.mkdir()
    for file in CODE.iterdir():
        if file.suffix == ".py":
            (code / file.name).symlink_to(file)
    numbers = NUMBERS[platform.machine()]
    facts = {
        "folder": str(place.folder),
        "paths": {
            "tenants": str(place.tenants),
            "keys": f"{place.keys}/",
            "frames": f"{place.keys}/frames/",
            "index": str(place.keys / "index.sqlite"),
            "constants": f"{place.constants}/",
            "bundle": str(place.bundle),
            "passwords": "/etc/passwd",
            "own_maps": "/proc/self/maps",
            "itself": "/proc/self/exe",
            "code": str(CODE / "attacks.py"),
        },
        "address": 4096,
        "port": place.port,
        "metrics_port": place.metrics_port,
        "abstract": place.abstract,
        "machine": platform.machine(),
        "clone": numbers["clone"],
        "tgkill": numbers["tgkill"],
        "bomb": str(place.folder / "unpickled"),
        "inputs": place.inputs.hex(),
    }
    (code / "facts.json").write_text(json.dumps(facts))
    return code


def marked(model: Bundle, body: bytes, attack: str, front: int, workers: Collection[int]) -> bytes:
    """A frame of inputs that has the worker try something, on the front and on the other worker."""
    part, parameters = model.manifest.input, model.manifest.to_parameters()
    fields = ciphertext_fields(parameters, count=part.layout.ciphertexts, level=part.level, seeded=True)
    (seed,) = (field for field in fields if field.name == "0.seed")
    said = f"hostile:{attack} {' '.join(map(str, (front, *workers)))}".encode().ljust(seed.size, b"\0")
    if len(said) > seed.size:
        raise ValueError(f"{said!r} is longer than a seed")
    return body[: seed.offset] + said + body[seed.end :]
