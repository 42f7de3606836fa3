"""Certificates of an authority of one's own, made with openssl, and a server that shows one."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest


@dataclass(frozen=True)
class Signed:
    """PEM files."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates; skips the test where there is no openssl."""

    def __init__(self, folder: Path) -> None:
        if not shutil.which("openssl"):
            pytest.skip("openssl is not installed")
        self._folder = folder
        self.ca = folder / "ca.pem"
        self._key = folder / "ca.key"
        _openssl("req", "-x509", *_NEW_KEY, "-keyout", self._key, "-out", self.ca, "-days", "2", "-subj", "/CN=own")

    def sign(self, name: str, alternative: str, days: int = 2) -> Signed:
        """A certificate for a host like DNS:localhost or IP:127.0.0.1."""
        key, request, out, extensions = (self._folder / f"{name}.{end}" for end in ("key", "csr", "pem", "ext"))
        _openssl("req", *_NEW_KEY, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        extensions.write_text(f"subjectAltName={alternative}\n")
        signing = ("-CA", self.ca, "-CAkey", self._key, "-CAcreateserial", "-extfile", extensions)
        _openssl("x509", "-req", "-in", request, "-out", out, "-days", str(days), *signing)
        return Signed(out, key)


_NEW_KEY = ("-newkey", "rsa:2048", "-nodes")


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


Respond = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def answering(respond: Respond, signed: Signed | None = None, clients: Path | None = None) -> Iterator[str]:
    """Address of a server that answers every request so, over TLS when it has a certificate.

    Args:
        clients: authority of the certificates that clients have to show.
    """

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except OSError:
                self.close_connection = True

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            respond(self)

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None: ...

        def finish_request(self, request, client_address) -> None:  # type: ignore[no-untyped-def]
            if signed:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(signed.certificate, signed.key)
                if clients:
                    context.verify_mode = ssl.CERT_REQUIRED
                    context.load_verify_locations(clients)
                with context.wrap_socket(request, server_side=True, do_handshake_on_connect=False) as wrapped:
                    try:
                        wrapped.do_handshake()
                    except ssl.SSLError:  # closed at once, with bytes unread, it would reset the connection
                        with socket.socket(fileno=wrapped.detach()) as plain:
                            plain.settimeout(5)
                            while plain.recv(4096):
                                pass
                    else:
                        super().finish_request(wrapped, client_address)
            else:
                super().finish_request(request, client_address)

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"{'https' if signed else 'http'}://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def body(content: bytes, status: int = 200, **headers: str) -> Respond:
    """An answer."""

    def respond(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(content)

    return respond
