"""What stands before the service and answers in its place, in HTML, while it is away: nginx, or a forwarder here."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import threading
from asyncio import StreamReader, StreamWriter
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import cycle
from pathlib import Path
from string import Template
from time import monotonic, sleep

import httpx

from benchmarks.support.ports import free_port

CODES = ("502", "503", "504")
"""With which the proxy says in turn, or by chance, that the service is away: different ones say it differently."""

_START_SECONDS = 10.0
_BODY_SECONDS = 10.0

_NGINX = Template("""
daemon off; ${user} pid ${folder}/pid; worker_processes 1;
events { worker_connections 4096; }
http {
    log_format answers "$$status $$sent_http_content_type";
    access_log ${folder}/answers answers;
    client_body_temp_path ${folder}/client_body;
    proxy_temp_path ${folder}/proxy;
    fastcgi_temp_path ${folder}/fastcgi; uwsgi_temp_path ${folder}/uwsgi; scgi_temp_path ${folder}/scgi;
    split_clients $$request_id $$away { 34% 502; 33% 503; * 504; }
    server {
        listen 127.0.0.1:${port};
        client_max_body_size 0;
        location / {
            proxy_pass http://127.0.0.1:${upstream};
            proxy_http_version 1.1;
            proxy_read_timeout 120s;
            error_page 502 504 = @away;
        }
        location @away {
            if ($$away = 502) { return 502; }
            if ($$away = 503) { return 503; }
            return 504;
        }
    }
}
""")


class Proxy:
    """A proxy that runs.

    Attributes:
        kind: nginx or forwarder.
        url: of it.
    """

    def __init__(self, kind: str, port: int, answers: Path | Counter[str]) -> None:
        self.kind = kind
        self.url = f"http://127.0.0.1:{port}"
        self._answers = answers

    def answers(self) -> Counter[str]:
        """How often it has answered for the service, by status."""
        if isinstance(self._answers, Counter):
            return Counter(self._answers)
        lines = (line.split() for line in self._answers.read_text().splitlines())
        return Counter(status for status, kind in lines if status in CODES and kind == "text/html")


@contextmanager
def proxied(upstream: int, folder: Path) -> Iterator[Proxy]:
    """A proxy before a port of this machine; what it writes is in a new folder."""
    folder.mkdir()
    if shutil.which("nginx"):
        with _nginx(upstream, folder) as proxy:
            yield proxy
    else:
        with _forwarder(upstream) as proxy:
            yield proxy


@contextmanager
def _nginx(upstream: int, folder: Path) -> Iterator[Proxy]:
    port = free_port()
    user = "user root;" if os.geteuid() == 0 else ""  # else its worker could not write what it keeps of bodies
    settings = folder / "nginx.conf"
    settings.write_text(_NGINX.substitute(folder=folder, port=port, upstream=upstream, user=user))
    with (folder / "log").open("wb") as log:
        command = ["nginx", "-e", "stderr", "-p", str(folder), "-c", str(settings)]
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    proxy = Proxy("nginx", port, folder / "answers")
    try:
        _wait(proxy, process, folder / "log")
        yield proxy
    finally:
        process.terminate()
        process.wait(_START_SECONDS)


def _wait(proxy: Proxy, process: subprocess.Popen[bytes], log: Path) -> None:
    end = monotonic() + _START_SECONDS
    while True:
        with suppress(httpx.TransportError):
            httpx.get(proxy.url)
            return
        if process.poll() is not None or monotonic() > end:
            raise RuntimeError(f"nginx did not start: {log.read_text()}")
        sleep(0.05)


# Without nginx ---------------------------------------------------------------------------------


@contextmanager
def _forwarder(upstream: int) -> Iterator[Proxy]:
    """Passes bytes on, and answers where nothing listens behind it."""
    answers: Counter[str] = Counter()
    loop = asyncio.new_event_loop()
    forwarder = _Forwarder(upstream, answers)
    port = loop.run_until_complete(forwarder.start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield Proxy("forwarder", port, answers)
    finally:
        asyncio.run_coroutine_threadsafe(forwarder.end(), loop).result(_START_SECONDS)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_START_SECONDS)
        loop.close()


class _Forwarder:
    def __init__(self, upstream: int, answers: Counter[str]) -> None:
        self._upstream = upstream
        self._answers = answers
        self._codes = cycle(CODES)
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def end(self) -> None:
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connection(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                await self._serve(reader, writer)
        finally:
            self._connections.discard(task)
            writer.close()

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._upstream)
        except OSError:
            async with asyncio.timeout(_BODY_SECONDS):
                await self._answer(reader, writer)
            return
        try:
            # Whichever side ends first, the other one has no more to say.
            ways = {asyncio.create_task(_pass_on(reader, back)), asyncio.create_task(_pass_on(there, writer))}
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            back.close()

    async def _answer(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Take the whole request first: who is still sending would only see the connection end."""
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").lower().splitlines()
        await reader.readexactly(next((int(line[15:]) for line in lines if line.startswith("content-length:")), 0))
        status = next(self._codes)
        body = f"<html><body><h1>{status}</h1></body></html>"
        fields = f"Content-Type: text/html\r\nContent-Length: {len(body)}\r\nConnection: close"
        self._answers[status] += 1
        writer.write(f"HTTP/1.1 {status} Away\r\n{fields}\r\n\r\n{body}".encode())
        await writer.drain()


async def _pass_on(reader: StreamReader, writer: StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
