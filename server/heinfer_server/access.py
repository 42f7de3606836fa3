"""Who asks: the API key of a request, and how much its tenant may ask for."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from heinfer.errors import RateLimitedError, SettingError, UnauthorizedError
from heinfer_server.logs import log, request_id, tenant_name
from heinfer_server.problems import problem_of
from heinfer_server.rates import Rate
from heinfer_server.settings import Settings
from heinfer_server.tenants import Directory, Who

_logger = logging.getLogger(__name__)

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/openapi.json"})
"""What says nothing of anybody is told to everybody."""

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

    def admit(self, scope: Scope) -> Who:
        """Say who asks, and count the request.

        Raises:
            UnauthorizedError: when no API key is there that is good; nothing says why.
            RateLimitedError: when the tenant has asked for too much.
        """
        if self._directory is None:
            return DEFAULT_TENANT
        self._refresh(self._directory)
        who = self._directory.find(_bearer(scope))
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

    def _refresh(self, directory: Directory) -> None:
        if self._clock() - self._refreshed < REFRESH_SECONDS:
            return
        self._refreshed = self._clock()
        try:
            directory.refresh()
        except SettingError as error:  # those who were known stay known
            log(_logger, logging.ERROR, "tenants not read", reason=str(error))


def _bearer(scope: Scope) -> str:
    """The API key in the head of a request; empty when there is none, or more than one."""
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(values) != 1:
        return ""
    scheme, _, key = values[0].decode("latin-1").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


class AccessMiddleware:
    """Admits a request before anything of its body is read; routes find who asks in `request.state.tenant`."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        try:
            who = self._access.admit(scope)
        except (UnauthorizedError, RateLimitedError) as error:
            log(_logger, logging.INFO, "refused", code=error.code, reason=str(error))
            await problem_of(error, request_id.get())(scope, receive, send)
            return
        scope.setdefault("state", {})["tenant"] = who.id
        tenant_name.set(who.name)

        async def counted_receive() -> Message:
            message = await receive()
            self._access.spend(who, len(message.get("body", b"")))
            return message

        async def counted_send(message: Message) -> None:
            self._access.spend(who, len(message.get("body", b"")))
            await send(message)

        await self._app(scope, counted_receive, counted_send)
