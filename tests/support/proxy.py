"""A real nginx or Caddy before a service, with the configurations that ship in deploy/."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from pages import ROOT
from server_process import wait_until

START_SECONDS = 10.0
UPSTREAM = "127.0.0.1:8000"
PREFIX = "/he"
HOST = "heinfer.example.org"


@dataclass(frozen=True)
class Certificate:
    """Files of a certificate for `localhost`, which is its own authority."""

    certificate: Path
    key: Path


def configuration(name: str, upstream: str, prefix: str) -> str:
    """A file of deploy/, as it is for a host of its own, or, with a prefix, changed as its comment says."""
    text = (ROOT / "deploy" / name).read_text()
    if prefix:
        own = r"location / \{.*?\}\n" if name == "nginx.conf" else r"reverse_proxy \S+\n"
        text, found = re.subn(rf"^\s+{own}(?=.*instead of that)", "", text, count=1, flags=re.M | re.S)
        assert found == 1
        head, tail = re.split(r"^.*instead of that .*:\n", text, flags=re.M)
        text = (head + tail.replace("#", "")).replace(f" {PREFIX}/", f" {prefix}/")
    assert UPSTREAM in text
    return text.replace(UPSTREAM, upstream.removeprefix("http://"))


@contextmanager
def proxied(upstream: str, prefix: str = "", certificate: Certificate | None = None) -> Iterator[str]:
    """Address of an nginx that passes what comes under a prefix like /he, or everything, on to a service.

    Without a certificate it speaks http. Skips the test where there is no nginx.
    """
    port = _free_port()
    server = configuration("nginx.conf", upstream, prefix)
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
        command = ["nginx", "-e", "stderr", "-p", name, "-c", str(folder / "nginx.conf")]
        with _running(command, folder, port, "apt-get install nginx-light"):
            yield f"{'https://localhost' if certificate else 'http://127.0.0.1'}:{port}{prefix}"


@contextmanager
def behind_caddy(upstream: str, prefix: str = "") -> Iterator[str]:
    """Address of a Caddy that does the same, without TLS; skips the test where there is none."""
    port = _free_port()
    site = configuration("Caddyfile", upstream, prefix)
    assert f"\n{HOST} {{" in site
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        head = "{\n\tadmin off\n\tauto_https off\n}\n"
        (folder / "Caddyfile").write_text(head + site.replace(HOST, f"http://127.0.0.1:{port}"))
        command = ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
        with _running(command, folder, port, "apt-get install caddy"):
            yield f"http://127.0.0.1:{port}{prefix}"


@contextmanager
def _running(command: Sequence[str], folder: Path, port: int, install: str) -> Iterator[None]:
    if not shutil.which(command[0]):
        pytest.skip(f"{command[0]} is not installed ({install})")
    with (folder / "log").open("w") as log:
        environment = {**os.environ, "HOME": str(folder)}
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        wait_until(lambda: _answers(port) or process.poll() is not None, START_SECONDS)
        assert process.poll() is None, (folder / "log").read_text()
        yield
    finally:
        process.terminate()
        process.wait(START_SECONDS)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def _answers(port: int) -> bool:
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0
