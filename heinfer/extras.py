"""What something needs beyond the bare installation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from heinfer.errors import SettingError


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Import inside this; SettingError names the extra to install when a package is not there."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "heinfer").partition(".")[0]
        if package.startswith("heinfer"):
            raise  # a package of ours cannot be missing: that is a defect, not a setting
        raise SettingError(f"{package} is not installed: pip install 'heinfer[{extra}]'") from error
