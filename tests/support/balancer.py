"""A real nginx before services that come and go."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from server_process import wait_until

START_SECONDS = 10.0


def free_port() -> int:
    """A port on which nothing listens now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def nginx(folder: Path, ports: Sequence[int], sticky: str = "", apart: tuple[str, int] | None = None) -> Iterator[str]:
    """Address of an nginx that passes requests on to services in turn; skips the test where there is none.

    Args:
        sticky: nginx's line that sends a client always to the same one.
        apart: a pattern of addresses, and the port of the service that all requests to them go to.
    """
    if not shutil.which("nginx"):
        pytest.skip("nginx is not installed (apt-get install nginx-light)")
    port = free_port()
    servers = "".join(f"server 127.0.0.1:{upstream} max_fails=0; " for upstream in ports)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"{kind}_temp_path {folder / kind}; " for kind in kinds)
    split = "" if apart is None else f"location ~ {apart[0]} {{ proxy_pass http://127.0.0.1:{apart[1]}; }}\n"
    (folder / "nginx.conf").write_text(
        f"daemon off; user root; pid {folder / 'nginx.pid'}; worker_processes 1; events {{}}\n"
        f"http {{ access_log off; client_max_body_size 64m; {places}\n"
        f"upstream services {{ {sticky} {servers} }}\n"
        f"server {{ listen 127.0.0.1:{port}; proxy_set_header Host $host;\n{split}"
        "location / { proxy_pass http://services; proxy_next_upstream off; } } }\n"
    )
    with (folder / "nginx.log").open("w") as log:
        command = ["nginx", "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_until(lambda: listens(port) or process.poll() is not None, START_SECONDS)
        assert process.poll() is None, (folder / "nginx.log").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(START_SECONDS)


def listens(port: int) -> bool:
    """Whether something does at a port."""
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0
