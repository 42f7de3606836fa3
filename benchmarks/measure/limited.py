"""A network of random weights, compiled whole and evaluated on ciphertexts under limits on its constants' memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import heinfer
from benchmarks.support.memory import peak_bytes
from benchmarks.support.networks import RANDOM, SEED
from benchmarks.support.pictures import pictures
from benchmarks.support.processes import in_a_process
from benchmarks.support.records import Record, cost_record, head, spread
from benchmarks.support.scaling import SIZED
from benchmarks.support.subject import Subject
from heinfer.formats import bundle
from heinfer.planner.requirements import Requirements
from heinfer_cli.comparison import cleartext_scores, precision_bits

LIMITS = 12_000_000_000, 3_000_000_000, 1_000_000_000
"""Bytes that constants may take."""
THREADS = 2, 1
EVALUATIONS = 3
"""Of pictures that it was not calibrated on."""
CALIBRATION_PICTURES = 40

LIMITED_SHOWN = (
    "network",
    "compile_cpu_seconds",
    "compile_peak_bytes",
    "limit_bytes",
    "threads",
    "constant_bytes",
    "eval_seconds",
    "precision_bits",
    "process_peak_bytes",
)


def limited_records(name: str) -> Iterator[Record]:
    """What a network of benchmarks/support/scaling.py takes: a record for each limit and number of threads.

    Compiling is a process of its own, and so is every limit: the memory of each is that of its process.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "network.heinfer"
        compiled = head("constants", network=name, backend="native", weights=RANDOM)
        compiled |= in_a_process(_compile, name, path)
        if "failure" in compiled:
            yield compiled
            return
        for limit in LIMITS:
            for threads in THREADS:
                evaluated = in_a_process(_evaluate, path, limit, threads)
                yield compiled | {"limit_bytes": limit, "threads": threads} | evaluated


def _compile(name: str, path: Path) -> Record:
    """Compile a network, calibrated on generated pictures, and save it."""
    (sized,) = (one for one in SIZED if one.name == name)
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    module = sized.build().eval()
    images = np.stack([picture / 255 for picture in pictures(sized.shape, CALIBRATION_PICTURES)])
    _normalise(module, images)
    channels = sized.shape[0]
    pixels = heinfer.Preprocessing(divisor=255, mean=(0,) * channels, std=(1,) * channels, low=0, high=1)
    wall, processor = perf_counter(), process_time()
    model = heinfer.compile(
        module, images, name="network", preprocessing=pixels, requirements=Requirements(backend="native")
    )
    wall, processor = perf_counter() - wall, process_time() - processor
    peak = peak_bytes()
    heinfer.save(model, path)
    return cost_record(model.report) | {
        "calibration_pictures": CALIBRATION_PICTURES,
        "compile_seconds": round(wall, 1),
        "compile_cpu_seconds": round(processor, 1),
        "compile_peak_bytes": peak,
        "predicted_peak_bytes": model.predicted_peak,
        "bundle_bytes": path.stat().st_size,
    }


def _normalise(module: nn.Module, images: NDArray[np.float64]) -> None:
    """Give every batch normalization the statistics of some images: without them random layers tell no two apart."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # the mean over batches, of which there is one
    with torch.no_grad():
        module.train()(torch.from_numpy(images).float())
    module.eval()


def _evaluate(path: Path, limit: int, threads: int) -> Record:
    """Evaluate encrypted pictures under a limit, and hold the decrypted scores against those in cleartext."""
    model = bundle.load(path)
    shown = list(pictures(model.manifest.input_shape, CALIBRATION_PICTURES + EVALUATIONS))[CALIBRATION_PICTURES:]
    cleartext = cleartext_scores(model, shown)
    begun = perf_counter()
    subject = Subject(model, "native", threads, most_constant_bytes=limit)
    ready = perf_counter() - begun
    subject.classify(shown[0])  # loads the keys
    used = process_time()
    answers = [subject.classify(picture) for picture in shown]
    used = process_time() - used
    bits = [precision_bits(scores, exact) for (scores, _), exact in zip(answers, cleartext, strict=True)]
    return {
        "constant_bytes": subject.worker.constant_bytes,
        "keys_and_constants_seconds": round(ready, 1),
        "eval_seconds": spread([seconds for _, seconds in answers]),
        "answer_cpu_seconds": round(used / EVALUATIONS, 3),  # encryption and decryption included
        "precision_bits": round(min(bits), 1),
        "process_peak_bytes": peak_bytes(),
    }
