"""Compiled models as a user names them."""

from __future__ import annotations

from pathlib import Path

from heinfer.zoo.shipped import bundle_path


def bundle_file(name_or_file: str) -> Path:
    """The file of a bundle: a path, or the name of one that ships with heinfer; SettingError when it is neither."""
    path = Path(name_or_file)
    return path if path.suffix == ".heinfer" or path.exists() else bundle_path(name_or_file)
