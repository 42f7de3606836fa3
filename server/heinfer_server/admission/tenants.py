"""Tenants and their API keys: a file that the command line writes and the service reads."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from math import inf
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from heinfer.errors import SettingError
from heinfer.formats.manifest import NAME, first_reason
from heinfer_server.admission.folder import in_folder

FORMAT = 2
_ID = r"^[0-9a-f]{16}$"
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class ApiKey(BaseModel):
    """What is kept of an API key: enough to know it again, not to use it.

    A plain hash is enough: a key has 256 random bits, which nobody finds by trying.

    Attributes:
        created: seconds since the epoch.
        expires: when it is good no more, the same; None for never.
        models: names of those that it may be used for; None for all.
    """

    model_config = ConfigDict(extra="forbid")

    id: str = Field(pattern="^[0-9a-f]{8}$")
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    created: float
    expires: float | None = None
    models: list[Annotated[str, Field(pattern=NAME)]] | None = None


class Tenant(BaseModel):
    """Somebody who uses the service.

    Attributes:
        id: what keys are stored under; new for each tenant, so that one who gets a name again inherits nothing.
        name: for the operator and the log.
        keys: any of them is good.
    """

    model_config = ConfigDict(extra="forbid")

    id: str = Field(pattern=_ID)
    name: str = Field(pattern=_NAME)
    keys: list[ApiKey] = []


class Removed(BaseModel):
    """An id under which nothing may be kept any more: of a tenant that was removed, or whose keys were purged.

    It stays in the file, so that it counts for what a backup brings back, too.
    """

    model_config = ConfigDict(extra="forbid")

    id: str = Field(pattern=r"^([0-9a-f]{16}|default)$")
    when: float


class _File(BaseModel):
    """Format 1 had no `removed`, and keys without `expires` and `models`."""

    model_config = ConfigDict(extra="forbid")

    format: int = Field(default=FORMAT, ge=1, le=FORMAT)
    tenants: list[Tenant] = []
    removed: list[Removed] = []


class _Format(BaseModel):
    format: int = 0


@dataclass(frozen=True)
class Terms:
    """What an API key is good for.

    Attributes:
        expires: seconds since the epoch after which it is good no more; None for never.
        models: names of those that it may be used for; None for all.
    """

    expires: float | None = None
    models: tuple[str, ...] | None = None


ANYTHING = Terms()


@dataclass(frozen=True)
class Who:
    """Whose API key came with a request.

    Attributes:
        expires: seconds since the epoch after which the key is good no more.
        models: names of those that it may be used for; None for all.
    """

    id: str
    name: str
    expires: float = inf
    models: frozenset[str] | None = None


def hash_of(api_key: str) -> str:
    """What is kept of an API key."""
    return sha256(api_key.encode()).hexdigest()


# The operator's side


class TenantFile:
    """The file, changed as a whole; two commands at once wait for each other. Its folder may be the service's own.

    Every method raises SettingError when the file cannot be read or written, or has no such tenant.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def tenants(self) -> list[Tenant]:
        """All tenants; none when there is no file."""
        try:
            with in_folder(self.path) as file:
                data = file.read()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unreadable(self.path, error) from None
        return [] if data is None else _parsed(self.path, data).tenants

    def add(self, name: str, terms: Terms = ANYTHING) -> str:
        """Add a tenant; returns its first API key, which is stored nowhere."""
        with self._changing() as content:
            if any(tenant.name == name for tenant in content.tenants):
                raise SettingError(f"there is a tenant {name}: `heinfer tenant key` makes another key for it")
            try:
                tenant = Tenant(id=secrets.token_hex(8), name=name)
            except ValidationError:
                raise SettingError("a tenant's name has up to 64 letters, digits, dots, dashes and bars") from None
            content.tenants.append(tenant)
            return _new_key(tenant, terms)

    def add_key(self, name: str, terms: Terms = ANYTHING) -> str:
        """Make another API key for a tenant, and return it; the others stay good."""
        with self._changing() as content:
            return _new_key(_named(content, name), terms)

    def revoke(self, name: str, key_id: str) -> None:
        """Make an API key of a tenant worthless; SettingError when it has none under the id."""
        with self._changing() as content:
            tenant = _named(content, name)
            left = [key for key in tenant.keys if key.id != key_id]
            if len(left) == len(tenant.keys):
                raise SettingError(f"{name} has no API key {key_id}: `heinfer tenant list` shows the ids")
            tenant.keys = left

    def remove(self, name: str) -> None:
        """Remove a tenant with all its API keys, and all that a service keeps of it."""
        with self._changing() as content:
            tenant = _named(content, name)
            content.tenants.remove(tenant)
            _bury(content, tenant.id)

    def purge(self, name: str) -> None:
        """Have a service forget all that it keeps of a tenant, who goes on under a new id.

        Args:
            name: of a tenant, or the id of one that is there no more (`default`: of the time without API keys).
        """
        with self._changing() as content:
            if any(tenant.name == name for tenant in content.tenants):
                tenant = _named(content, name)
                _bury(content, tenant.id)
                tenant.id = secrets.token_hex(8)
            elif any(tenant.id == name for tenant in content.tenants):
                raise SettingError(f"{name} is the id of a tenant: say its name, which `heinfer tenant list` shows")
            elif any(removed.id == name for removed in content.removed):
                raise SettingError(f"what is kept under {name} is purged already, wherever a service reads this file")
            else:
                try:
                    _bury(content, name)
                except ValidationError:
                    raise _no_tenant(name) from None

    @contextmanager
    def _changing(self) -> Iterator[_File]:
        try:
            with in_folder(self.path) as file, file.locked():
                data = file.read()
                content = _File() if data is None else _parsed(self.path, data)
                yield content
                content.format = FORMAT
                file.replace((content.model_dump_json(indent=2) + "\n").encode())
        except OSError as error:
            raise SettingError(f"{self.path} cannot be written: {error.strerror}") from None


def _named(content: _File, name: str) -> Tenant:
    for tenant in content.tenants:
        if tenant.name == name:
            return tenant
    raise _no_tenant(name)


def _no_tenant(name: str) -> SettingError:
    return SettingError(f"there is no tenant {name}: `heinfer tenant list` shows them")


def _bury(content: _File, tenant_id: str) -> None:
    content.removed.append(Removed(id=tenant_id, when=time.time()))


def _new_key(tenant: Tenant, terms: Terms) -> str:
    key_id = secrets.token_hex(4)
    api_key = f"heinfer-{key_id}-{secrets.token_hex(32)}"
    try:
        models = None if terms.models is None else list(terms.models)
        key = ApiKey(id=key_id, sha256=hash_of(api_key), created=time.time(), expires=terms.expires, models=models)
    except ValidationError:
        raise SettingError(
            "names of models have up to 64 of a-z, 0-9, dots, dashes and bars: GET /models lists them"
        ) from None
    tenant.keys.append(key)
    return api_key


def read_tenants(path: Path) -> _File:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise SettingError(
            f"there is no file of tenants {path}: `heinfer tenant add NAME --tenants {path}` makes it"
        ) from None
    except OSError as error:
        raise _unreadable(path, error) from None
    return _parsed(path, data)


def _parsed(path: Path, data: bytes) -> _File:
    try:
        return _File.model_validate_json(data)
    except ValidationError as error:
        found = _format_of(data)
        if found > FORMAT:
            raise SettingError(
                f"a newer heinfer wrote {path} (format {found}, and this one reads up to {FORMAT}): upgrade this one"
            ) from None
        raise SettingError(
            f"{path} is no file of tenants as `heinfer tenant` writes them: {first_reason(error)}"
        ) from None


def _format_of(data: bytes) -> int:
    try:
        return _Format.model_validate_json(data).format
    except ValidationError:
        return 0


def _unreadable(path: Path, error: OSError) -> SettingError:
    return SettingError(
        f"{path} cannot be read ({error.strerror}): it must be a file that the user who serves may read"
    )


# The service's side
