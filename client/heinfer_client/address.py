"""Where the service is, and what goes to it besides requests: checked before anything is sent."""

from __future__ import annotations

import os
import re
import ssl
from dataclasses import dataclass, field
from importlib.util import find_spec
from ipaddress import ip_address
from typing import TypedDict
from urllib.request import getproxies, proxy_bypass

import httpx

from heinfer.errors import SettingError
from heinfer_client.tls import Certificate, PathLike, tls_context

TIMEOUT = httpx.Timeout(connect=10.0, read=600.0, write=60.0, pool=None)
"""Of each step on the way; reading waits for an evaluation, and for those before it."""

API_KEY_VARIABLE = "HEINFER_API_KEY"

HEADERS = {"Accept-Encoding": "identity"}
"""Ciphertexts do not compress."""

_WITHOUT = "to reach the service without it, name the service's host in NO_PROXY"


class Options(TypedDict):
    """What httpx's clients are made with."""

    auth: tuple[str, str] | None
    headers: dict[str, str]
    timeout: httpx.Timeout


class Network(TypedDict, total=False):
    """What httpx's own transports are made with."""

    proxy: httpx.Proxy | None
    verify: ssl.SSLContext


@dataclass(frozen=True)
class Address:
    """The address of a service, and how to reach it.

    Attributes:
        url: without credentials: it may be shown and stored.
        proxy: on the way to it, without credentials; empty when there is none.
        options, network: for httpx; network is empty where requests leave otherwise.
    """

    url: str
    proxy: str
    options: Options = field(repr=False)
    network: Network = field(repr=False)


def checked_address(
    url: str,
    *,
    api_key: str | None,
    ca: PathLike | None,
    certificate: Certificate | None,
    allow_plain_http: bool,
    is_network: bool = True,
) -> Address:
    """The address that a URL gives, and what a client was given to go with it.

    Args:
        api_key: None for that of the environment.
        ca, certificate: files, see tls_context.
        allow_plain_http: to another machine, with an API key or a password.
        is_network: whether requests leave through httpx's own transport.

    Raises:
        SettingError: when one of them does not serve; it echoes nothing that may be secret.
    """
    parsed = _parsed(url)
    credentials = (parsed.username, parsed.password) if parsed.userinfo else None
    headers = _headers(api_key, credentials)
    bare = parsed.copy_with(userinfo=b"")
    options = Options(auth=credentials, headers=headers, timeout=TIMEOUT)
    is_tls = parsed.scheme == "https"
    if not is_tls and (ca is not None or certificate is not None):
        raise SettingError("ca and certificate are for TLS: give a URL that begins with https://")
    if not is_network:
        return Address(str(bare).rstrip("/"), "", options, Network())
    proxy = _proxy(bare)
    if not is_tls and (credentials or "Authorization" in headers) and not allow_plain_http:
        _require_loopback(bare.host, None if proxy is None else proxy.url.host)
    network = Network(proxy=proxy, verify=tls_context(ca, certificate))
    shown = "" if proxy is None else str(proxy.url.copy_with(userinfo=b"")).rstrip("/")
    return Address(str(bare).rstrip("/"), shown, options, network)


def _parsed(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError):
        raise _malformed() from None
    rest = (parsed.path, parsed.query.decode(), parsed.fragment)
    # An @ after the host's part: a password that has a / in it, and what is before that would be taken for the host.
    if parsed.scheme not in ("http", "https") or not parsed.host or any(rest[1:]) or "@" in rest[0]:
        raise _malformed()
    return parsed


def _malformed() -> SettingError:
    return SettingError(
        "the server's URL must be like http://127.0.0.1:8000, user and password in it percent-encoded, without a query"
    )


def _headers(api_key: str | None, credentials: tuple[str, str] | None) -> dict[str, str]:
    key = os.environ.get(API_KEY_VARIABLE, "") if api_key is None else api_key
    if key == "":
        return HEADERS
    if credentials:
        raise SettingError("give an API key or a URL with user and password: both go into the same header")
    if not isinstance(key, str) or not re.fullmatch(r"[!-~]{1,512}", key):
        raise SettingError("the API key must be the string that `heinfer tenant` printed, without spaces")
    return HEADERS | {"Authorization": f"Bearer {key}"}


def _require_loopback(host: str, proxy: str | None) -> None:
    """SettingError unless what is not encrypted stays on this machine."""
    way = "allow_plain_http=True (heinfer predict: --allow-plain-http) sends it all the same"
    if not _is_loopback(host):
        raise SettingError(
            "an API key or a password over plain http can be read on the way to another machine: give a URL that "
            f"begins with https://; {way}"
        )
    if proxy is not None and not _is_loopback(proxy):
        raise SettingError(
            "an API key or a password over plain http can be read by the proxy that the environment names: "
            f"{_WITHOUT}; {way}"
        )


def _is_loopback(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return host.lower().removesuffix(".") == "localhost"
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _proxy(url: httpx.URL) -> httpx.Proxy | None:
    """The proxy that the environment names for this address."""
    found = getproxies()
    given = found.get(url.scheme) or found.get("all")
    if not given or any(map(proxy_bypass, (url.netloc.decode("ascii"), url.host))):
        return None
    try:
        proxy = httpx.Proxy(given if "://" in given else f"http://{given}")
    except (httpx.InvalidURL, ValueError):
        proxy = None
    if proxy is None or not proxy.url.host:
        raise SettingError(
            f"the proxy that the environment names ({url.scheme.upper()}_PROXY or ALL_PROXY) is none: give "
            f"http://HOST:PORT; {_WITHOUT}"
        )
    if proxy.url.scheme.startswith("socks") and find_spec("socksio") is None:
        raise SettingError(
            "the environment names a SOCKS proxy (ALL_PROXY), which needs a package that is not installed: "
            f"pip install 'httpx[socks]'; {_WITHOUT}"
        )
    return proxy
