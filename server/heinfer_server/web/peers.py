"""The address that a request comes from: the connection's, or what a proxy that the operator trusts says."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TypeAlias

from starlette.types import Scope

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

MOST_HOPS = 16
"""Addresses of X-Forwarded-For that are looked at, from its end."""

_LENGTH = 64


def peer_of(scope: Scope, trusted: Sequence[Network]) -> str | None:
    """The address that a request comes from; None for a connection that has none.

    Every proxy adds whom it heard to the end of X-Forwarded-For. So, from the end on, what trusted proxies have added
    is true, up to the first address that is none of theirs; what is before that, anybody may have written. Where all
    are trusted, the first one counts. A header that is malformed where it would be read says nothing.
    """
    client = scope.get("client")
    if client is None:
        return None
    heard = _address(client[0])
    if heard is None or not _is_among(heard, trusted):
        return str(client[0] if heard is None else heard)
    found = heard
    hops = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for").decode("latin-1")
    for hop in reversed(hops.rsplit(",", MOST_HOPS)[-MOST_HOPS:] if hops else []):
        address = _hop(hop.strip(" \t"))
        if address is None:
            return str(heard)
        found = address
        if not _is_among(address, trusted):
            break
    return str(found)


def _hop(text: str) -> Address | None:
    """An address as proxies write it: some with a port, IPv6 then in brackets. None for anything else."""
    if len(text) > _LENGTH or "%" in text:  # a scope may be any text
        return None
    if text.startswith("["):
        inner, bracket, port = text[1:].partition("]")
        return _address(inner) if bracket and (not port or _is_port(port)) else None
    host, colon, port = text.partition(":")
    if colon and ":" not in port:
        return _address(host) if _is_port(colon + port) else None
    return _address(text)


def _is_port(text: str) -> bool:
    return text.startswith(":") and text[1:].isascii() and text[1:].isdecimal()


def _address(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _is_among(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)
