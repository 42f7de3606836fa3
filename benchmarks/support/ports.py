"""Ports of this machine for services that benchmarks and tests start."""

from __future__ import annotations

import socket


def free_port() -> int:
    """A port on which nothing listens just now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
