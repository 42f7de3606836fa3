"""Whose an API key is, by the file of tenants as it is now."""

from __future__ import annotations

from math import inf
from pathlib import Path

from heinfer_server.admission.tenants import ApiKey, Tenant, Who, hash_of, read_tenants


class TenantRegistry:
    """Who an API key belongs to, by the file as it is now.

    Raises:
        SettingError: when the file cannot be read at first. Later it goes on with what it last read.

    Attributes:
        removed: ids under which nothing may be kept. One that is merely missing in the file is not among them: the file
            may be damaged, an old one, or that of another service.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read()

    def refresh(self) -> None:
        """Read the file again if it has changed; SettingError when it cannot be read."""
        if _stamp(self._path) != self._stamp:
            self._read()

    def find(self, api_key: str) -> Who | None:
        """Whose key this is; None when it is nobody's."""
        return self._by_hash.get(hash_of(api_key))

    def _read(self) -> None:
        stamp = _stamp(self._path)
        content = read_tenants(self._path)
        self._by_hash = {key.sha256: _who(tenant, key) for tenant in content.tenants for key in tenant.keys}
        self.removed = frozenset(entry.id for entry in content.removed) - {tenant.id for tenant in content.tenants}
        self._stamp = stamp


def _who(tenant: Tenant, key: ApiKey) -> Who:
    models = None if key.models is None else frozenset(key.models)
    return Who(tenant.id, tenant.name, inf if key.expires is None else key.expires, models)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
