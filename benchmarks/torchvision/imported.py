"""A network of torchvision at its own size: what heinfer reads it as, against what torch computes."""

from __future__ import annotations

import copy
import time

import numpy as np
import torch
from torch import nn

from benchmarks.support.memory import peak_bytes
from benchmarks.support.records import Record, counted_record
from benchmarks.torchvision.networks import built, images, prepared, shape_of
from heinfer import check
from heinfer.errors import CompileError, PlanError
from heinfer.frontend import trace
from heinfer.network.folding import fold
from heinfer.planner.search.merging import Merging

SEEN, COMPARED = 8, 2
"""Images: those that polynomials are fitted to, and those whose scores are compared."""


def imported(name: str) -> Record:
    """Differences are of the largest score; seconds are of this process, which has a thread."""
    torch.set_num_threads(1)
    shape = shape_of(name)
    found = prepared(built(name), images(shape, SEEN))
    begun = time.process_time()
    network = trace(found.module, shape)
    seconds = time.process_time() - begun
    x = images(shape, COMPARED, seed=1)
    scores = network(x.double().numpy())
    single = _scores(found.module, x)
    double = _scores(copy.deepcopy(found.module).double(), x.double())
    largest = np.abs(double).max()
    return {
        "activations": found.activations,
        "max_pools": found.pools,
        "nodes": len(network.nodes),
        "largest_score": float(f"{largest:.3g}"),
        "difference_float64": float(f"{np.abs(scores - double).max() / largest:.2g}"),
        "difference_float32": float(f"{np.abs(scores - single).max() / largest:.2g}"),
        "float32_itself": float(f"{np.abs(single - double).max() / largest:.2g}"),
        "levels": Merging(fold(network)).levels[0],
        "import_seconds": round(seconds, 1),
        "import_peak_mb": round(peak_bytes() / 1e6),
    }


def checked(name: str) -> Record:
    """What ``heinfer.check`` says of it as it is."""
    torch.set_num_threads(1)
    module = built(name)
    begun = time.process_time()
    found = check(module, shape_of(name))
    seconds = time.process_time() - begun
    said: Record = {
        "verdict": str(found.assumed.verdict),
        "calls": len(found.assumed.calls),
        "products": found.products,
    }
    if found.cost is not None:
        said |= counted_record(found.cost)
    return said | {
        "refusal": found.refusal,
        "check_seconds": round(seconds, 1),
        "check_peak_mb": round(peak_bytes() / 1e6),
    }


def refused(name: str) -> Record:
    """Why a network cannot be."""
    try:
        trace(built(name), shape_of(name))
    except (CompileError, PlanError) as error:
        return {"refusal": str(error)}
    return {"refusal": ""}


def _scores(module: nn.Module, x: torch.Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    with torch.no_grad():
        return np.array(module(x).double().numpy())
