"""The policies by name."""

from __future__ import annotations

from enum import StrEnum


class Policy(StrEnum):
    """Who chooses layouts and kernels."""

    HEINFER = "heinfer"  # the search
    UNFACTORIZED = "heinfer-unfactorized"  # the search, after every FFConv pair was multiplied out
    LOLA = "lola"
    FFCONV = "ffconv"
    FALCON = "falcon"

    @property
    def is_published(self) -> bool:
        """Whether it is a published method, which leaves nothing to choose."""
        return self in (Policy.LOLA, Policy.FFCONV, Policy.FALCON)
