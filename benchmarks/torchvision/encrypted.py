"""A network of torchvision for small images: compiled, and an image evaluated encrypted."""

from __future__ import annotations

import copy
import time
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

import heinfer
from benchmarks.support.memory import peak_bytes
from benchmarks.support.records import Record, cost_record
from benchmarks.support.subject import Subject
from benchmarks.torchvision.networks import images, prepared
from benchmarks.torchvision.small import CLASSES, SHAPE, small
from heinfer.compiler.precision import BITS
from heinfer.compiler.report import report
from heinfer.errors import CompileError
from heinfer.planner.requirements import Requirements

Scores: TypeAlias = NDArray[np.float64]

CALIBRATION = 64
"""Images that polynomials are fitted to and scales are chosen for; others are encrypted."""
IMAGES = 2
_PREPROCESSING = heinfer.Preprocessing(
    divisor=1, mean=(0.0,) * SHAPE[0], std=(1.0,) * SHAPE[0], low=-2.0, high=2.0, kind="values"
)


def encrypted(name: str, backend: str) -> Record:
    """Differences are of the largest score; precision is in bits of it."""
    torch.set_num_threads(1)
    seen = images(SHAPE, CALIBRATION)
    found = prepared(small(name), seen)
    begun = time.process_time()
    try:
        model = heinfer.compile(
            found.module,
            seen.double().numpy(),
            name=f"torchvision-{name.replace('_', '-')}",
            preprocessing=_PREPROCESSING,
            labels=tuple(f"class {n}" for n in range(CLASSES)),
            requirements=Requirements(backend=backend),
        )
    except CompileError as error:
        return {"activations": found.activations, "refusal": str(error)}
    seconds = time.process_time() - begun
    peak = peak_bytes()
    x = images(SHAPE, IMAGES, seed=1).double()
    with torch.no_grad():
        expected = copy.deepcopy(found.module).double()(x).numpy()
    scores = model(x.numpy())
    subject = Subject(model.bundle, backend)
    answers = [subject.classify(image) for image in x.numpy()]
    decrypted = np.stack([np.reshape(answer, CLASSES) for answer, _ in answers])
    largest = np.abs(expected - expected.mean(axis=1, keepdims=True)).max()
    return {
        "activations": found.activations,
        "max_pools": found.pools,
        **cost_record(report(model.bundle, backend)),
        "difference_cleartext": float(f"{_apart(scores, expected) / largest:.2g}"),
        "bits_predicted": float(model.bundle.metadata[BITS].split()[0]),
        "bits_measured": round(-float(np.log2(_apart(decrypted, expected) / largest)), 1),
        "images": IMAGES,
        "same_label": int((decrypted.argmax(1) == expected.argmax(1)).sum()),
        "compile_seconds": round(seconds, 1),
        "compile_peak_mb": round(peak / 1e6),
        "eval_seconds": round(min(seconds for _, seconds in answers), 2),
        "peak_mb": round(peak_bytes() / 1e6),
        "refusal": "",
    }


def _apart(one: Scores, other: Scores) -> float:
    """Most that scores differ by, without what all of an image share: that may be taken out of a classification's."""
    return float(np.abs((one - one.mean(axis=1, keepdims=True)) - (other - other.mean(axis=1, keepdims=True))).max())
