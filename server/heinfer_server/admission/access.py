"""Who asks: the API key of a request, and how much its tenant may ask for."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from math import inf

from heinfer.errors import ApiKeyExpiredError, SettingError, UnauthorizedError
from heinfer_server.admission.rates import Rate
from heinfer_server.admission.registry import TenantRegistry
from heinfer_server.admission.tenants import Who
from heinfer_server.settings import Settings
from heinfer_server.telemetry.logs import log

_logger = logging.getLogger(__name__)

DEFAULT_TENANT = Who("default", "default")
"""Who everybody is while nobody is told apart."""

REFRESH_SECONDS = 1.0
REMINDER_SECONDS = 60.0


class Access:
    """Tells tenants apart and holds them to their rates.

    Raises:
        SettingError: when the file of tenants cannot be read.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._directory = TenantRegistry(settings.tenants) if settings.tenants else None
        self._clock = clock
        self._wall = wall
        self._reminded = -inf
        self._refreshed = clock()
        self.requests = Rate(settings.tenant_requests, "requests", clock)
        self.bytes = Rate(float(settings.tenant_bytes), "bytes", clock)

    @property
    def requires_api_key(self) -> bool:
        """Whether requests need an API key."""
        return self._directory is not None

    @property
    def removed(self) -> frozenset[str]:
        """Ids of tenants of whom nothing may be kept."""
        return frozenset() if self._directory is None else self._directory.removed

    def admit(self, api_key: str) -> Who:
        """Say who asks with an API key, empty for none, and count the request.

        Raises:
            UnauthorizedError: when no API key is there that is good; nothing says why.
            ApiKeyExpiredError: when it was good once.
            RateLimitedError: when the tenant has asked for too much.
        """
        if self._directory is None:
            return DEFAULT_TENANT
        self.refresh()
        who = self._directory.find(api_key)
        if who is None:
            raise UnauthorizedError("this service needs an API key: send it as `Authorization: Bearer KEY`")
        if self._wall() >= who.expires:
            when = datetime.fromtimestamp(who.expires, UTC).isoformat(timespec="minutes")
            raise ApiKeyExpiredError(f"this API key has expired ({when}): ask the operator for another")
        self.requests.require(who.id)
        self.bytes.require(who.id)
        self.requests.spend(who.id, 1)
        return who

    def spend(self, who: Who, amount: int) -> None:
        """Count bytes of a body, in or out."""
        if self._directory is not None:
            self.bytes.spend(who.id, amount)

    def refresh(self) -> None:
        """Read the file of tenants anew if it has changed; a second must have passed since the last look."""
        if self._directory is not None and self._clock() - self._refreshed >= REFRESH_SECONDS:
            self.reload()

    def reload(self) -> bool:
        """Read the file of tenants now, if it has changed; False when it cannot be read."""
        if self._directory is None:
            return True
        now = self._refreshed = self._clock()
        try:
            self._directory.refresh()
        except SettingError as error:  # those who were known stay known
            if now - self._reminded >= REMINDER_SECONDS:
                self._reminded = now
                log(_logger, logging.ERROR, "tenants not read", reason=str(error))
            return False
        self._reminded = -inf
        return True
