"""A real nginx before a service, with the configuration that docs/operation.md gives."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from pages import ROOT, blocks
from server_process import wait_until

START_SECONDS = 10.0
DOCUMENTED_UPSTREAM = "http://127.0.0.1:8000"
DOCUMENTED_PREFIX = "/he"


@dataclass(frozen=True)
class Certificate:
    """Files of a certificate for `localhost`, which is its own authority."""

    certificate: Path
    key: Path


def server_block(upstream: str, prefix: str) -> str:
    """The documented `server`, for a host of its own (no prefix) or with the documented location for a prefix."""
    server, location = blocks((ROOT / "docs" / "operation.md").read_text(), "nginx")
    if prefix:
        server, found = re.subn(r"^    location / \{.*?^    \}\n", lambda _: location, server, flags=re.M | re.S)
        assert found == 1
        server = server.replace(f" {DOCUMENTED_PREFIX}/", f" {prefix}/")
    return server.replace(DOCUMENTED_UPSTREAM, upstream)


@contextmanager
def proxied(upstream: str, prefix: str = "", certificate: Certificate | None = None) -> Iterator[str]:
    """Address of an nginx that passes what comes under a prefix like /he, or everything, on to a service.

    Without a certificate it speaks http. Skips the test where there is no nginx.
    """
    if not shutil.which("nginx"):
        pytest.skip("nginx is not installed (apt-get install nginx-light)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = server_block(upstream, prefix)
    if certificate:
        server = server.replace("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;")
        server = re.sub(r"(ssl_certificate) .*;", rf"\1 {certificate.certificate};", server)
        server = re.sub(r"(ssl_certificate_key) .*;", rf"\1 {certificate.key};", server)
    else:
        server = server.replace("listen 443 ssl;", f"listen 127.0.0.1:{port};")
        server = re.sub(r"^ *ssl_.*;\n", "", server, flags=re.M)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        places = "".join(f"    {kind}_temp_path {folder / kind};\n" for kind in kinds)
        head = f"daemon off;\nuser root;\npid {folder / 'pid'};\nworker_processes 1;\nevents {{}}\n"
        (folder / "nginx.conf").write_text(f"{head}http {{\n    access_log off;\n{places}{server}}}\n")
        with (folder / "log").open("w") as log:
            command = ["nginx", "-e", "stderr", "-p", name, "-c", str(folder / "nginx.conf")]
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait_until(lambda: _answers(port) or process.poll() is not None, START_SECONDS)
            assert process.poll() is None, (folder / "log").read_text()
            yield f"{'https://localhost' if certificate else 'http://127.0.0.1'}:{port}{prefix}"
        finally:
            process.terminate()
            process.wait(START_SECONDS)


def _answers(port: int) -> bool:
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0
