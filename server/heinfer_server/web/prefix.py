"""The prefix under which a proxy serves the service: taken off where the proxy leaves it."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from heinfer.errors import SettingError

OPENAPI_PATH = "/openapi.json"


class PrefixMiddleware:
    """Has all that is inside see the paths of OpenAPI, whether a proxy takes the prefix off or not."""

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(f"{self._root_path}/"):
            scope["path"] = scope["path"].removeprefix(self._root_path)  # in place: who surrounds us reads the route
        await self._app(scope, receive, send)


def require_unlike(root_path: str, paths: Iterable[str]) -> None:
    """SettingError when a path of the service's own may begin like the prefix: which is meant would be unclear."""
    for path in (*paths, OPENAPI_PATH):
        if root_path and path.split("/")[1] == root_path.split("/")[1]:
            raise SettingError(
                f"HEINFER_SERVER_ROOT_PATH is {root_path}, and the service has a path {path} of its own: "
                "choose a prefix that begins otherwise"
            )
