"""Where a client sends, through what, how well protected, and what it takes back."""

import asyncio
import gzip
import itertools
import socket
import ssl
import subprocess
import tracemalloc
import zlib
from collections import deque
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx
import numpy as np
import pytest
from authority import Authority, Signed, answering, body
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import tiny_bundle
from typer.testing import CliRunner

from heinfer.errors import ImageError, InsecureConnectionError, ServiceError, ServiceUnavailableError, SettingError
from heinfer_cli.main import app
from heinfer_client import AsyncClient, Client, retries
from heinfer_client.address import _is_loopback
from heinfer_client.answers import Answer
from heinfer_client.messages import Request

MODEL = tiny_bundle()
MANIFEST = MODEL.manifest.to_bytes()
VARIABLES = [f"{kind}_proxy" for kind in ("http", "https", "all", "no")]


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """No proxy, API key or authority of this machine's."""
    for name in [*VARIABLES, *map(str.upper, VARIABLES), "HEINFER_API_KEY", "SSL_CERT_FILE", "SSL_CERT_DIR"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(retries, "FIRST_PAUSE", 0.001)


def opened(url: str, **arguments: object) -> None:
    """Fetch the manifest, and no more as an image does not fit, with both clients."""

    async def use() -> None:
        async with AsyncClient(url, model="tiny", **arguments) as client:
            with pytest.raises(ImageError):
                await client.encrypt_and_predict(np.zeros(1))
            assert client.manifest == MODEL.manifest

    asyncio.run(use())
    with Client(url, model="tiny", **arguments) as client:
        with pytest.raises(ImageError):
            client.encrypt_and_predict(np.zeros(1))
        assert client.manifest == MODEL.manifest


def refusal(error: type[Exception], url: str, **arguments: object) -> str:
    """What both clients say, which is the same."""
    texts = []

    async def use() -> None:
        async with AsyncClient(url, model="tiny", **arguments) as client:
            await client.prepare()

    def use_other() -> None:
        with Client(url, model="tiny", **arguments) as client:
            client.prepare()

    for call in (lambda: asyncio.run(use()), use_other):
        with pytest.raises(error) as caught:
            call()
        assert type(caught.value) is error
        texts.append(str(caught.value))
    return texts[1]


@pytest.fixture(scope="module")
def dead() -> str:
    """An address at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return f"http://127.0.0.1:{port}"


# Redirections ----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("https://other/models/tiny/manifest", "to https://other "),
        ("https://other/v1/models/tiny/manifest?next=1#a", "to https://other/v1 "),
        ("https://me:secret@other/login", "to https://other/login "),
        ("/v2/models/tiny/manifest", "to http://127.0.0.1"),
        ("https://other/" + "x" * 5000, "to https://other/xxx"),
        (None, "elsewhere (HTTP"),
    ],
)
def test_a_redirection_is_told_and_not_followed(status, location, shown):
    asked = []

    def respond(handler):
        asked.append(handler.path)
        body(b"", status, **({} if location is None else {"Location": location}))(handler)

    with answering(respond) as url:
        text = refusal(ServiceError, url)
    assert shown in text
    assert f"HTTP status {status}" in text
    assert "secret" not in text
    assert text.isprintable()
    assert len(text) < 500
    assert asked == ["/models/tiny/manifest"] * 2


@pytest.mark.parametrize("location", ["https://other/\x1b[2J\x07", "http://other:port/"])
def test_a_redirection_that_is_malformed_is_not_echoed(location):
    with answering(body(b"", 307, Location=location)) as url:
        text = refusal(ServiceUnavailableError, url)
    assert "what came is no HTTP" in text
    assert location not in text


# Proxies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_dead_proxy_is_named_without_its_password(monkeypatch, dead, variable):
    monkeypatch.setenv(variable, dead.replace("//", "//me:secret@"))
    text = refusal(ServiceUnavailableError, "http://127.0.0.1:1")
    assert f"no answer from http://127.0.0.1:1 through the proxy {dead} (" in text
    assert "is the proxy, which the environment names, running? NO_PROXY=HOST" in text
    assert "secret" not in text


def test_a_dead_proxy_is_named_on_the_way_to_https_too(monkeypatch, dead):
    monkeypatch.setenv("HTTPS_PROXY", dead)
    assert f"through the proxy {dead} (" in refusal(ServiceUnavailableError, "https://127.0.0.1:1")


def test_a_proxy_that_refuses_is_named(monkeypatch):
    with answering(body(b"no")) as proxy:  # it knows no CONNECT
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        assert f"through the proxy {proxy} (the proxy refuses" in refusal(
            ServiceUnavailableError, "https://localhost:1"
        )


@pytest.mark.parametrize("hosts", ["127.0.0.1", "*", "example.org, 127.0.0.1"])
def test_who_needs_no_proxy_goes_without(monkeypatch, dead, hosts):
    monkeypatch.setenv("HTTP_PROXY", dead)
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", hosts)
    with answering(body(MANIFEST)) as url:
        opened(url)


def test_a_proxy_passes_on(monkeypatch):
    asked = []

    def respond(handler):
        asked.append(handler.path)
        body(MANIFEST)(handler)

    with answering(respond) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.removeprefix("http://"))  # as curl takes it too
        opened("http://service:8000")
    assert asked == ["http://service:8000/models/tiny/manifest"] * 2


def test_a_proxy_that_is_reached_by_tls_sees_tls_only(monkeypatch, authority, signed):
    """TLS in TLS: what goes to the service is encrypted once more."""
    seen, targets = [], []

    def passed(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                seen.append(data)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    class Tunnel(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def do_CONNECT(self) -> None:
            targets.append(self.path)
            self.send_response(200)
            self.end_headers()
            with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as service:
                back = Thread(target=passed, args=(service, self.connection))
                back.start()
                passed(self.connection, service)
                back.join()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(signed.certificate, signed.key)
    with answering(body(MANIFEST), signed) as url, ThreadingHTTPServer(("127.0.0.1", 0), Tunnel) as proxy:
        proxy.socket = context.wrap_socket(proxy.socket, server_side=True)
        thread = Thread(target=proxy.serve_forever, args=(0.02,))
        thread.start()
        monkeypatch.setenv("HTTPS_PROXY", f"https://127.0.0.1:{proxy.server_address[1]}")
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
        try:
            opened(url, timeout=20)
        finally:
            proxy.shutdown()
        thread.join()
    assert targets == [url.removeprefix("https://")] * 2
    assert b"HTTP" not in b"".join(seen)


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_a_socks_proxy_has_a_way_out(monkeypatch, scheme):
    monkeypatch.setenv("ALL_PROXY", f"{scheme}://me:secret@127.0.0.1:1")
    text = refusal(SettingError, "http://127.0.0.1:1")
    assert "pip install 'httpx[socks]'" in text
    assert "NO_PROXY" in text
    assert "secret" not in text


@pytest.mark.parametrize("proxy", ["ftp://me:secret@host", "http://", "socks4://secret:1"])
def test_what_is_no_proxy_is_refused_and_not_echoed(monkeypatch, proxy):
    monkeypatch.setenv("ALL_PROXY", proxy)
    text = refusal(SettingError, "http://127.0.0.1:1")
    assert "HTTP_PROXY or ALL_PROXY" in text
    assert "secret" not in text


# Plain HTTP ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST", "localhost.", "127.0.0.1", "127.8.7.6", "[::1]", "[::ffff:127.0.0.1]"]
)
def test_an_api_key_may_go_to_this_machine(host):
    for url, key in ((f"http://{host}:8000", "key"), (f"http://me:word@{host}:8000", None)):
        Client(url, model="tiny", api_key=key)
        AsyncClient(url, model="tiny", api_key=key)


@pytest.mark.parametrize(
    "host",
    [
        "server",
        "example.org",
        "10.0.0.1",
        "0.0.0.0",
        "[::]",
        "[fe80::1]",
        "localhost.example.org",
        "127.0.0.1.example.org",
        "notlocalhost",
        "[::ffff:10.0.0.1]",
        "128.0.0.1",
    ],
)
def test_an_api_key_does_not_go_elsewhere_unprotected(monkeypatch, host):
    for url, key in ((f"http://{host}:8000", "secret"), (f"http://me:secret@{host}:8000", None)):
        text = refusal(SettingError, url, api_key=key)
        assert "https://" in text
        assert "allow_plain_http=True (heinfer predict: --allow-plain-http)" in text
        assert "secret" not in text
        Client(url, model="tiny", api_key=key, allow_plain_http=True)
        Client(url.replace("http", "https"), model="tiny", api_key=key)
    Client(f"http://{host}:8000", model="tiny")
    monkeypatch.setenv("HEINFER_API_KEY", "secret")
    refusal(SettingError, f"http://{host}:8000")


def test_an_api_key_goes_through_no_proxy_elsewhere_either(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    assert "NO_PROXY" in refusal(SettingError, "http://127.0.0.1:8000", api_key="secret")
    Client("http://127.0.0.1:8000", model="tiny")
    Client("https://127.0.0.1:8000", model="tiny", api_key="key")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:3128")
    Client("http://127.0.0.1:8000", model="tiny", api_key="key")


@given(st.ip_addresses())
def test_of_addresses_those_are_loopback_that_are(address):
    mapped = getattr(address, "ipv4_mapped", None)
    assert _is_loopback(str(address)) == (mapped or address).is_loopback


# TLS -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def signed(authority: Authority) -> Signed:
    return authority.sign("host", "IP:127.0.0.1")


def test_an_authority_of_ones_own_is_trusted_when_it_is_named(monkeypatch, authority, signed):
    with answering(body(MANIFEST), signed) as url:
        text = refusal(InsecureConnectionError, url)
        assert "CERTIFICATE_VERIFY_FAILED" in text
        assert (
            "is signed by nobody who is trusted here: of an authority of your own give the certificate as ca=" in text
        )
        opened(url, ca=authority.ca)
        opened(url, ca=str(authority.ca))
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
        opened(url)


def test_a_certificate_of_another_host_is_told(authority):
    other = authority.sign("other", "DNS:elsewhere")
    with answering(body(MANIFEST), other) as url:
        assert "for another host" in refusal(InsecureConnectionError, url, ca=authority.ca)
        assert "for another host" in refusal(
            InsecureConnectionError, url.replace("127.0.0.1", "localhost"), ca=authority.ca
        )


def test_a_certificate_that_has_expired_is_told(authority):
    with answering(body(MANIFEST), authority.sign("old", "IP:127.0.0.1", days=-1)) as url:
        assert "has to be renewed" in refusal(InsecureConnectionError, url, ca=authority.ca)


def test_a_service_may_ask_who_the_client_is(authority, signed, tmp_path):
    mine = authority.sign("me", "DNS:me")
    both = tmp_path / "both.pem"
    both.write_bytes(mine.certificate.read_bytes() + mine.key.read_bytes())
    with answering(body(MANIFEST), signed, clients=authority.ca) as url:
        assert "wants a certificate of the client" in refusal(InsecureConnectionError, url, ca=authority.ca)
        opened(url, ca=authority.ca, certificate=(mine.certificate, mine.key))
        opened(url, ca=authority.ca, certificate=both)


def test_https_to_a_port_that_speaks_http_is_told_once():
    asked = []
    with answering(asked.append) as url:
        text = refusal(InsecureConnectionError, url.replace("http", "https"))
    assert "the service may speak http, not https" in text
    assert asked == []


def test_files_that_do_not_serve_are_named(monkeypatch, authority, signed, tmp_path):
    no, empty, locked = (tmp_path / name for name in ("no.pem", "empty.pem", "locked.key"))
    empty.write_text("")
    locking = ["openssl", "rsa", "-in", signed.key, "-aes128", "-passout", "pass:word", "-out", locked]
    subprocess.run(locking, check=True, capture_output=True)
    url = "https://127.0.0.1:1"
    for arguments, text in (
        ({"ca": no}, f"ca={no} does not serve (No such file"),
        ({"ca": empty}, f"ca={empty} does not serve (NO_CERTIFICATE"),
        ({"ca": tmp_path}, f"ca={tmp_path} does not serve ("),
        ({"ca": 5}, "ca must be the path of a file, not 5"),
        ({"ca": "a\0b"}, "does not serve ("),
        ({"certificate": no}, f"certificate={no} does not serve (No such file"),
        ({"certificate": authority.ca}, f"certificate={authority.ca} does not serve ("),
        ({"certificate": (signed.certificate, no)}, f"certificate={signed.certificate}, {no} does not serve (No such"),
        ({"certificate": (signed.certificate, locked)}, "has a passphrase"),
        ({"certificate": ()}, "certificate must be"),
        ({"certificate": (no, no, no)}, "certificate must be"),
        ({"certificate": (no, 5)}, "certificate must be the path of a file, not 5"),
    ):
        assert text in refusal(SettingError, url, **arguments)
    for arguments in ({"ca": authority.ca}, {"certificate": signed.certificate}):
        assert "https://" in refusal(SettingError, "http://127.0.0.1:1", **arguments)
    monkeypatch.setenv("SSL_CERT_FILE", str(no))
    assert "SSL_CERT_FILE or SSL_CERT_DIR does not serve (No such file" in refusal(SettingError, url)


def test_the_command_line_has_them_too(authority, signed, tmp_path):
    np.save(tmp_path / "image.npy", np.zeros((4, 4)))
    with answering(body(b"{}", 404), signed) as url:
        common = ["predict", url, str(tmp_path / "image.npy"), "--model", "tiny"]
        result = CliRunner().invoke(app, [*common, "--ca", str(authority.ca)])
        assert "there is no heinfer service at" in result.output
        result = CliRunner().invoke(app, [*common, "--certificate", str(tmp_path / "no.pem")])
        assert "does not serve" in "".join(result.output.split("\n"))
    result = CliRunner().invoke(app, ["predict", "http://server:1", str(tmp_path / "image.npy"), "--api-key", "key"])
    assert result.exit_code == 2
    assert "--allow-plain-http" in result.output


# Compressed answers ----------------------------------------------------------------------------


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "deflate", "GZIP"])
def test_an_answer_that_a_proxy_compresses_is_read(coding):
    packed = gzip.compress(MANIFEST) if "z" in coding.lower().replace("deflate", "") else zlib.compress(MANIFEST)
    with answering(body(packed, Content_Encoding=coding)) as url:
        opened(url)


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, gzip", "nonsense\x7f"])
def test_a_coding_that_is_not_known_is_refused(coding):
    with answering(body(b"bomb", Content_Encoding=coding)) as url:
        assert "compressed, which was not asked for, in a way that is not known" in refusal(ServiceError, url)


def received(packed: bytes, limit: int, coding: str = "gzip", piece: int = 1 << 16) -> bytes:
    request = Request("GET", "/", limit=limit)
    response = httpx.Response(
        200,
        headers={"Content-Encoding": coding},
        content=iter([packed[start : start + piece] for start in range(0, len(packed), piece)]),
        request=httpx.Request("GET", "http://service/"),
    )
    answer = Answer(request, response)
    for chunk in response.iter_bytes():
        answer.add(chunk)
    return answer.reply().body


@given(st.binary(max_size=5000), st.integers(1, 2000), st.integers(0, 9), st.sampled_from(["gzip", "deflate"]))
def test_what_is_compressed_is_what_it_was(data, piece, level, coding):
    packed = gzip.compress(data, level) if coding == "gzip" else zlib.compress(data, level)
    assert received(packed, len(data), coding, piece) == data


@given(st.binary(min_size=1, max_size=200), st.data())
def test_what_is_damaged_is_refused(data, draw):
    packed = gzip.compress(data)
    cut = draw.draw(st.integers(1, len(packed) - 1))
    for damaged in (packed[:cut], packed + b"\0", b"x" + packed):
        with pytest.raises(ServiceError, match="compressed, and damaged"):
            received(damaged, 1000)


def test_a_bomb_costs_no_memory():
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join([packer.compress(bytes(1 << 24)) for _ in range(4)]) + packer.flush()
    assert len(bomb) < 1 << 17
    tracemalloc.start()
    with pytest.raises(ServiceError, match="longer than the 100000 bytes"):
        received(bomb, 100_000)
    assert tracemalloc.get_traced_memory()[1] < 3 << 20
    tracemalloc.stop()


def test_nothing_for_ever_is_given_up():
    empty = zlib.compressobj(wbits=31)
    head = empty.compress(b"") + empty.flush(zlib.Z_SYNC_FLUSH)
    blocks = itertools.repeat(b"\x00\x00\x00\xff\xff" * 1000)
    response = httpx.Response(
        200,
        headers={"Content-Encoding": "gzip"},
        content=itertools.chain([head], blocks),
        request=httpx.Request("GET", "http://service/"),
    )
    answer = Answer(Request("GET", "/"), response)
    with pytest.raises(ServiceError, match="longer than"):
        deque(map(answer.add, response.iter_bytes()), maxlen=0)
