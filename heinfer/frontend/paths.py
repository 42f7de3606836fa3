"""Paths of modules as their owner knows them: without what is put around a model of several inputs or outputs."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

INSIDE = "_of_the_user"
"""Under which a module that is put around a user's holds it."""


def users_path(path: str) -> str:
    """A path in the user's own module, "" for that itself."""
    names = path.split(".")
    while names[:1] == [INSIDE]:
        names = names[1:]
    return ".".join(names)


def named_modules(root: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """All modules inside one, by their paths."""
    return ((users_path(path), part) for path, part in root.named_modules())
