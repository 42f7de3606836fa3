"""Settings of the service: environment variables HEINFER_SERVER_*, or arguments."""

from __future__ import annotations

import os
import re
from difflib import get_close_matches
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ByteSize, DirectoryPath, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PREFIX = "HEINFER_SERVER_"
_LIKENESS = 0.8
_ROOT_PATH = re.compile(r"(/(?!\.+(/|$))[A-Za-z0-9._~-]+)*", re.ASCII)


def _default_workers() -> int:
    cores = len(os.sched_getaffinity(0))
    return min(cores, 4)  # every worker holds the models and some clients' keys: more is for the operator to ask


class Settings(BaseSettings):
    """How the service runs.

    Attributes:
        host: address to listen on.
        port: TCP port; 0 takes a free one, which the line at readiness names.
        root_path: prefix under which a proxy serves the service, such as /he; addresses in answers have it.
        trusted_proxies: networks of proxies, with commas between them, such as 127.0.0.1,10.0.0.0/8: from these alone
            X-Forwarded-For is believed, for the address in the log.
        bundles: files of compiled models; in the environment separated as in PATH. Of several versions of one model the
            first is current, the others answer for clients that hold their manifests.
        trust: files of public keys, separated as in PATH; a bundle that none of them has signed is not opened.
        backend: what evaluates; auto is the native backend where it is installed, else SEAL.
        tenants: file of the tenants and their API keys, which `heinfer tenant` writes; a change counts within a second.
        no_auth: serve without API keys, everybody as one tenant; on a loopback address only, for requests that name one
            (Host, Origin). Either this or tenants.
        tenant_requests: requests that one tenant may send in a minute; not counted without tenants.
        tenant_bytes: bytes of bodies, in and out, that one tenant may have in a minute; not counted without tenants.
        workers: processes that evaluate, one request each at a time.
        threads: that each of them spreads an evaluation over; SEAL takes one. More than one shorten an answer when
            there are fewer requests at a time than cores.
        model_memory: bytes that all models together may take in each worker: their encoded weights, and the
            intermediate results of one evaluation. On the native backend, weights for which there is no room are kept
            as coefficients, which take one row instead of one for every level, and encoded in every evaluation.
        memory: bytes that all processes together may take; by default what this machine has, or what systemd
            (MemoryMax, MemoryHigh) or a container allows. What is predicted to take more is refused at the start, with
            the numbers.
        constants_folder: where encoded weights are kept, so that workers start at once and share them in memory; on
            the native backend. By default every worker encodes its own.
        key_memory: bytes of clients' evaluation keys that are kept in memory, where no folder is set, and of those that
            are on their way in pieces; the least recently used go first.
        loaded_key_memory: bytes of keys that each worker keeps expanded, ready for use; those of one client at least.
            Who comes back after many others waits until they are loaded again.
        key_folder: where clients' evaluation keys are kept instead, and outlive the process; it must belong to this
            server alone.
        key_disk: bytes of keys that are kept there.
        key_quota: bytes of keys of one tenant; by default as many as there may be of all.
        key_seconds: keys that nobody has used for so long go.
        longest_downtime: seconds that the service is at most out of use. A clock that is further, at the start, from
            what was stored in the key folder is not believed: no keys expire until it is right, or confirmed.
        upload_seconds: an upload of keys in pieces that stands still for so long is over.
        evaluation_timeout: seconds one evaluation may take, loading of keys included.
        require_isolation: refuse to serve where the kernel lacks a part of what shuts workers in: seccomp, Landlock.
            Without it what is missing is logged at the start.
        job_seconds: that a job is kept, with its result, after it is over.
        drain_seconds: that a service which is told to end gives the requests that are under way.
        metrics_host: address at which Prometheus finds /metrics; one that no tenant reaches.
        metrics_port: its TCP port, 0 for a free one, which the log names; without it there are no metrics.
        body_seconds_per_mib: seconds a client may take for each started MiB of a request body.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    root_path: str = ""
    trusted_proxies: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = ()
    bundles: Annotated[tuple[Path, ...], NoDecode]
    trust: Annotated[tuple[Path, ...] | None, NoDecode] = None
    backend: Literal["auto", "native", "tenseal"] = "auto"
    tenants: Path | None = None
    no_auth: bool = False
    tenant_requests: int = Field(default=600, ge=1)
    tenant_bytes: ByteSize = Field(default=ByteSize(1 << 30), gt=0)
    workers: int = Field(default_factory=_default_workers, ge=1, le=256)
    threads: int = Field(default=1, ge=1, le=256)
    model_memory: ByteSize = Field(default=ByteSize(4 << 30), gt=0)
    memory: ByteSize | None = Field(default=None, gt=0)
    constants_folder: DirectoryPath | None = None
    key_memory: ByteSize = Field(default=ByteSize(1 << 30), gt=0)
    loaded_key_memory: ByteSize = Field(default=ByteSize(1 << 30), gt=0)
    key_folder: Path | None = None
    key_disk: ByteSize = Field(default=ByteSize(16 << 30), gt=0)
    key_quota: ByteSize | None = Field(default=None, gt=0)
    key_seconds: float = Field(default=30 * 86400.0, gt=0, allow_inf_nan=False)
    longest_downtime: float = Field(default=7 * 86400.0, gt=0, allow_inf_nan=False)
    upload_seconds: float = Field(default=600.0, gt=0, allow_inf_nan=False)
    evaluation_timeout: float = Field(default=60.0, gt=0, allow_inf_nan=False)
    require_isolation: bool = False
    job_seconds: float = Field(default=600.0, gt=0, allow_inf_nan=False)
    drain_seconds: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = Field(default=None, ge=0, le=65535)
    body_seconds_per_mib: float = Field(default=10.0, gt=0, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _check_environment(cls, given: Any) -> Any:
        """Refuse what is misspelt: a bound that somebody has set, and that does not count, is worse than none.

        What is like no setting at all may be of others: Kubernetes sets variables for each of its services.
        """
        for variable in sorted(os.environ):
            name = variable.lower().removeprefix(PREFIX.lower())
            if variable.upper().startswith(PREFIX) and name not in cls.model_fields:
                for near in get_close_matches(name, cls.model_fields, 1, _LIKENESS):
                    words = {"name": variable, "near": f"{PREFIX}{near.upper()}"}
                    raise PydanticCustomError("unknown", "{name} is no setting: did you mean {near}?", words)
        return given

    @model_validator(mode="after")
    def _check_access(self) -> Self:
        if self.no_auth and self.tenants is not None:
            raise PydanticCustomError(
                "access",
                "there are tenants and no_auth, which contradict each other: unset HEINFER_SERVER_TENANTS or "
                "HEINFER_SERVER_NO_AUTH (--tenants or --no-auth)",
            )
        if not self.no_auth and self.tenants is None:
            raise PydanticCustomError(
                "access",
                "say who may use it: `heinfer tenant add NAME --tenants FILE` makes an API key, then set "
                "HEINFER_SERVER_TENANTS to FILE; or set HEINFER_SERVER_NO_AUTH=1: everybody on this machine",
            )
        if self.no_auth and not is_loopback(self.host):
            raise PydanticCustomError(
                "access", "without API keys (no_auth) the service listens on a loopback address only"
            )
        return self

    @property
    def key_capacity(self) -> int:
        """Bytes of keys that are kept, wherever they are."""
        return int(self.key_memory if self.key_folder is None else self.key_disk)

    @field_validator("root_path")
    @classmethod
    def _check_root_path(cls, path: str) -> str:
        if not _ROOT_PATH.fullmatch(path):
            raise PydanticCustomError(
                "root_path",
                "a prefix is empty, or written like /he or /a/b: a slash before each part and none at the end, parts "
                "of letters, digits, dots, dashes, bars and tildes, not of dots alone",
            )
        return path

    @field_validator("constants_folder")
    @classmethod
    def _check_folder(cls, folder: Path | None) -> Path | None:
        if folder is not None and not os.access(folder, os.W_OK | os.X_OK):
            raise PydanticCustomError(
                "folder", "{folder} cannot be written by this user: give it to it", {"folder": str(folder)}
            )
        return folder

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _split_networks(cls, value: Any) -> Any:
        return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value

    @field_validator("bundles", "trust", mode="before")
    @classmethod
    def _split_paths(cls, value: Any) -> Any:
        return tuple(filter(None, value.split(os.pathsep))) if isinstance(value, str) else value

    @field_validator("bundles")
    @classmethod
    def _check_bundles(cls, bundles: tuple[Path, ...]) -> tuple[Path, ...]:
        if not bundles:
            raise PydanticCustomError("bundles", "it names no file: name bundles that heinfer compile wrote")
        return bundles

    @field_validator("trust")
    @classmethod
    def _check_trust(cls, trust: tuple[Path, ...] | None) -> tuple[Path, ...] | None:
        if trust == ():
            raise PydanticCustomError(
                "trust", "it names no file of a public key: name one, or unset it and serve bundles that nobody signed"
            )
        return trust


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address; a name other than localhost is not looked up."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def problems_of(error: ValidationError) -> str:
    """What is wrong with settings, for who set them."""
    return "; ".join(
        f"{PREFIX}{str(entry['loc'][0]).upper()}: {entry['msg']}" if entry["loc"] else entry["msg"]
        for entry in error.errors()
    )
