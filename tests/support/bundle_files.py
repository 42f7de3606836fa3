"""Compiled models as files, each under the name of its model; later versions of one have a number besides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from heinfer.formats import bundle as bundles
from heinfer.formats.bundle import Bundle


def save_all(folder: Path, models: Sequence[Bundle]) -> list[Path]:
    """Write models to a folder; returns the files, in the same order."""
    seen: Counter[str] = Counter()
    paths = []
    for model in models:
        name = model.manifest.name
        seen[name] += 1
        paths.append(folder / (f"{name}.heinfer" if seen[name] == 1 else f"{name}-{seen[name]}.heinfer"))
        bundles.save(model, paths[-1])
    return paths
