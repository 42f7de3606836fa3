"""The compiled networks that ship inside the package."""

from __future__ import annotations

from pathlib import Path

from heinfer.errors import SettingError

BUNDLES = Path(__file__).parent / "bundles"


def bundle_path(name: str) -> Path:
    """Path of a shipped bundle; SettingError names those there are."""
    shipped = sorted(path.stem for path in BUNDLES.glob("*.heinfer"))
    if name not in shipped:
        raise SettingError(f"no bundle {name!r} ships with heinfer; there are {', '.join(shipped) or 'none'}")
    return BUNDLES / f"{name}.heinfer"
