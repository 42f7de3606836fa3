"""What a network does on images: how often it is right, how large its values get."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from heinfer.zoo.data import normalise

_AT_ONCE = 1000  # images: bounds the memory of a pass over a data set


def evaluate(module: nn.Module, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> float:
    """Return the share, in [0, 1], of images as a data set has them that ``module`` classifies as labelled.

    Leaves ``module`` in evaluation mode.
    """
    right = sum(
        int((scores.argmax(1).numpy() == some).sum())
        for scores, some in zip(_scores(module, images), np.array_split(labels, _parts(labels)), strict=True)
    )
    return right / len(labels)


def calibrate(module: nn.Module, images: NDArray[np.uint8]) -> dict[str, float]:
    """Return the largest |value| over images of ``input`` and of every layer's output, by its path.

    Leaves ``module`` in evaluation mode.
    """
    largest = {"input": float(np.abs(normalise(images)).max())}

    def watch(path: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(_: nn.Module, __: object, output: Tensor) -> None:
            largest[path] = max(largest.get(path, 0.0), float(output.abs().max()))

        return hook

    layers = [(path, part) for path, part in module.named_modules() if not list(part.children())]
    hooks = [part.register_forward_hook(watch(path)) for path, part in layers]
    _scores(module, images)
    for hook in hooks:
        hook.remove()
    return largest


def _scores(module: nn.Module, images: NDArray[np.uint8]) -> list[Tensor]:
    module.eval()
    device = next(module.parameters()).device
    with torch.no_grad():
        return [
            module(torch.from_numpy(normalise(part)).to(device)).cpu()
            for part in np.array_split(images, _parts(images))
        ]


def _parts(rows: NDArray[np.uint8] | NDArray[np.int64]) -> int:
    return -(-len(rows) // _AT_ONCE)
