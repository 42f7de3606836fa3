"""Tenants and their API keys: a file that the command line writes and the service reads."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from heinfer.errors import SettingError
from heinfer.formats.manifest import first_reason
from heinfer_server.admission.folder import in_folder

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class ApiKey(BaseModel):
    """What is kept of an API key: enough to know it again, not to use it.

    A plain hash is enough: a key has 256 random bits, which nobody finds by trying.
    """

    model_config = ConfigDict(extra="forbid")

    id: str = Field(pattern="^[0-9a-f]{8}$")
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    created: float


class Tenant(BaseModel):
    """Somebody who uses the service.

    Attributes:
        id: what keys are stored under; new for each tenant, so that one who gets a name again inherits nothing.
        name: for the operator and the log.
        keys: any of them is good.
    """

    model_config = ConfigDict(extra="forbid")

    id: str = Field(pattern="^[0-9a-f]{16}$")
    name: str = Field(pattern=_NAME)
    keys: list[ApiKey] = []


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    tenants: list[Tenant] = []


@dataclass(frozen=True)
class Who:
    """Whose API key came with a request."""

    id: str
    name: str


def hash_of(api_key: str) -> str:
    """What is kept of an API key."""
    return sha256(api_key.encode()).hexdigest()


# The operator's side


class TenantFile:
    """The file, changed as a whole; two commands at once wait for each other. Its folder may be the service's own.

    Every method raises SettingError when the file cannot be read or written, or has no such tenant.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def tenants(self) -> list[Tenant]:
        """All tenants; none when there is no file."""
        try:
            with in_folder(self._path) as file:
                data = file.read()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unreadable(self._path, error) from None
        return [] if data is None else _parsed(self._path, data).tenants

    def add(self, name: str) -> str:
        """Add a tenant; returns its first API key, which is stored nowhere."""
        with self._changing() as content:
            if any(tenant.name == name for tenant in content.tenants):
                raise SettingError(f"there is a tenant {name}: `heinfer tenant key` makes another key for it")
            try:
                tenant = Tenant(id=secrets.token_hex(8), name=name)
            except ValidationError:
                raise SettingError("a tenant's name has up to 64 letters, digits, dots, dashes and bars") from None
            content.tenants.append(tenant)
            return _new_key(tenant)

    def add_key(self, name: str) -> str:
        """Make another API key for a tenant, and return it; the others stay good."""
        with self._changing() as content:
            return _new_key(_named(content, name))

    def revoke(self, name: str, key_id: str) -> None:
        """Make an API key of a tenant worthless; SettingError when it has none under the id."""
        with self._changing() as content:
            tenant = _named(content, name)
            left = [key for key in tenant.keys if key.id != key_id]
            if len(left) == len(tenant.keys):
                raise SettingError(f"{name} has no API key {key_id}: `heinfer tenant list` shows the ids")
            tenant.keys = left

    def remove(self, name: str) -> None:
        """Remove a tenant with all its API keys."""
        with self._changing() as content:
            content.tenants.remove(_named(content, name))

    @contextmanager
    def _changing(self) -> Iterator[_File]:
        try:
            with in_folder(self._path) as file:
                file.lock()
                data = file.read()
                content = _File() if data is None else _parsed(self._path, data)
                yield content
                file.replace((content.model_dump_json(indent=2) + "\n").encode())
        except OSError as error:
            raise SettingError(f"{self._path} cannot be written: {error.strerror}") from None


def _named(content: _File, name: str) -> Tenant:
    for tenant in content.tenants:
        if tenant.name == name:
            return tenant
    raise SettingError(f"there is no tenant {name}: `heinfer tenant list` shows them")


def _new_key(tenant: Tenant) -> str:
    key_id = secrets.token_hex(4)
    api_key = f"heinfer-{key_id}-{secrets.token_hex(32)}"
    tenant.keys.append(ApiKey(id=key_id, sha256=hash_of(api_key), created=time.time()))
    return api_key


def _read(path: Path) -> _File:
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
        raise SettingError(
            f"{path} is no file of tenants as `heinfer tenant` writes them: {first_reason(error)}"
        ) from None


def _unreadable(path: Path, error: OSError) -> SettingError:
    return SettingError(
        f"{path} cannot be read ({error.strerror}): it must be a file that the user who serves may read"
    )


# The service's side


class Directory:
    """Who an API key belongs to, by the file as it is now.

    Raises:
        SettingError: when the file cannot be read at first. Later it goes on with what it last read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = _stamp(path)
        self._by_hash = _by_hash(path)

    def refresh(self) -> None:
        """Read the file again if it has changed; SettingError when it cannot be read."""
        stamp = _stamp(self._path)
        if stamp != self._stamp:
            self._by_hash = _by_hash(self._path)
            self._stamp = stamp

    def find(self, api_key: str) -> Who | None:
        """Whose key this is; None when it is nobody's."""
        return self._by_hash.get(hash_of(api_key))


def _by_hash(path: Path) -> dict[str, Who]:
    return {key.sha256: Who(tenant.id, tenant.name) for tenant in _read(path).tenants for key in tenant.keys}


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
