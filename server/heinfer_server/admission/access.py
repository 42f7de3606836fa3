"""Who asks: the API key of a request, and how much its tenant may ask for."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from heinfer.errors import SettingError, UnauthorizedError
from heinfer_server.admission.rates import Rate
from heinfer_server.admission.tenants import Directory, Who
from heinfer_server.settings import Settings
from heinfer_server.telemetry.logs import log

_logger = logging.getLogger(__name__)

DEFAULT_TENANT = Who("default", "default")
"""Who everybody is while nobody is told apart."""

REFRESH_SECONDS = 1.0


class Access:
    """Tells tenants apart and holds them to their rates.

    Raises:
        SettingError: when the file of tenants cannot be read.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._directory = Directory(settings.tenants) if settings.tenants else None
        self._clock = clock
        self._refreshed = clock()
        self.requests = Rate(settings.tenant_requests, "requests", clock)
        self.bytes = Rate(float(settings.tenant_bytes), "bytes", clock)

    @property
    def tells_apart(self) -> bool:
        """Whether requests need an API key."""
        return self._directory is not None

    def admit(self, api_key: str) -> Who:
        """Say who asks with an API key, empty for none, and count the request.

        Raises:
            UnauthorizedError: when no API key is there that is good; nothing says why.
            RateLimitedError: when the tenant has asked for too much.
        """
        if self._directory is None:
            return DEFAULT_TENANT
        self._refresh(self._directory)
        who = self._directory.find(api_key)
        if who is None:
            raise UnauthorizedError("this service needs an API key: send it as `Authorization: Bearer KEY`")
        self.requests.require(who.id)
        self.bytes.require(who.id)
        self.requests.spend(who.id, 1)
        return who

    def spend(self, who: Who, amount: int) -> None:
        """Count bytes of a body, in or out."""
        if self._directory is not None:
            self.bytes.spend(who.id, amount)

    def reload(self) -> bool:
        """Read the file of tenants now, if it has changed; False when it cannot be read."""
        return self._directory is None or self._read(self._directory)

    def _refresh(self, directory: Directory) -> None:
        if self._clock() - self._refreshed >= REFRESH_SECONDS:
            self._read(directory)

    def _read(self, directory: Directory) -> bool:
        self._refreshed = self._clock()
        try:
            directory.refresh()
        except SettingError as error:  # those who were known stay known
            log(_logger, logging.ERROR, "tenants not read", reason=str(error))
            return False
        return True
