"""Developer, server and client in three directories and three processes: only what is named here crosses."""

import json
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np
import pytest
import zstandard
from server_process import server_process
from tiny_model import LABELS, cleartext_scores

from heinfer.ckks import secret_file
from heinfer.formats import bundle as bundles

pytestmark = pytest.mark.slow

SUPPORT = Path(__file__).parents[1] / "support"
IMAGE = np.random.default_rng(7).random((4, 4))

DEVELOPER = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from tiny_model import tiny_bundle
from heinfer.formats import bundle
bundle.save(tiny_bundle(), Path("tiny.heinfer"))
"""

CLIENT = """
import json, sys
import numpy as np
from heinfer_client import Client
with Client(sys.argv[1], model="tiny", keys_path="secret.key") as client:
    prediction = client.encrypt_and_predict(np.load("image.npy"))
json.dump({"label": prediction.label, "scores": prediction.scores.tolist()}, open("result.json", "w"))
assert not {"torch", "fastapi", "heinfer_server"} & set(sys.modules)
"""


class Wiretap:
    """Forwards connections to the server and keeps every byte that goes to it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.received = bytearray()

    def accept(self) -> None:
        """Serve connections until the listener is closed."""
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._port))
                for source, sink, keep in ((near, far, True), (far, near, False)):
                    thread = threading.Thread(target=self._forward, args=(source, sink, keep))
                    thread.start()
                    self._threads.append(thread)

    def _forward(self, source: socket.socket, sink: socket.socket, keep: bool) -> None:
        with sink, suppress(OSError):
            while data := source.recv(1 << 16):
                if keep:
                    self.received += data
                sink.sendall(data)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)


@contextmanager
def wiretap(url: str) -> Iterator[Wiretap]:
    port = httpx.URL(url).port
    assert port is not None
    tap = Wiretap(port)
    acceptor = threading.Thread(target=tap.accept)
    acceptor.start()
    try:
        yield tap
    finally:
        tap.close()
        acceptor.join(10)


def run(script: str, folder: Path, *arguments: str) -> None:
    folder.mkdir(exist_ok=True)
    subprocess.run([sys.executable, "-c", script, *arguments], cwd=folder, timeout=120, check=True)


def secret_forms(path: Path) -> list[bytes]:
    """A stored secret key as it could leak: as SEAL's bytes, and as residues in 64 and in 32 bits."""
    found = secret_file.read(path)
    parameters, saved = found.parameters, found.key(None)
    body = zstandard.ZstdDecompressor().decompressobj().decompress(saved[struct.calcsize("<HBBBBHQ") :])
    words = np.frombuffer(body[-8 * parameters.ring_degree * len(parameters.primes) :], "<u8")
    assert (words.reshape(len(parameters.primes), -1).max(axis=1) < parameters.primes).all()
    return [saved, words.tobytes(), words.astype("<u4").tobytes()]


def holds_some_of(haystack: bytes, form: bytes) -> bool:
    """Whether any aligned run of 32 bytes of a form of the secret is in there."""
    return any(form[start : start + 32] in haystack for start in range(0, len(form) - 31, 32))


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> tuple[Path, Path, Path]:
    root = tmp_path_factory.mktemp("places")
    return root / "developer", root / "server", root / "client"


def test_only_the_bundle_the_manifest_and_frames_cross(places):
    developer, server_folder, client = places
    run(DEVELOPER.format(tests=str(SUPPORT)), developer)
    assert [path.name for path in developer.iterdir()] == ["tiny.heinfer"]

    handed_over = bundles.load(developer / "tiny.heinfer")
    with server_process(server_folder, [handed_over], key_folder=server_folder / "keys") as server:
        assert (server_folder / "tiny.heinfer").read_bytes() == (developer / "tiny.heinfer").read_bytes()
        shutil.rmtree(developer)

        client.mkdir()
        np.save(client / "image.npy", IMAGE)
        with wiretap(server.url) as tap:
            run(CLIENT, client, tap.url)
        server.stop()

    result = json.loads((client / "result.json").read_text())
    expected = cleartext_scores(IMAGE)
    assert result["scores"] == pytest.approx(expected, abs=0.05)
    assert result["label"] == LABELS[int(expected.argmax())]

    assert {path.name for path in client.iterdir()} == {
        "image.npy",
        "result.json",
        "secret.key",
        "secret.key.registration",
    }
    files = [path for path in server_folder.rglob("*") if path.is_file()]
    (frames,) = (path for path in files if path.parent.name == "frames")  # the evaluation keys, as they came
    assert frames.read_bytes() in tap.received
    index = {"index.sqlite", "index.sqlite-wal", "index.sqlite-shm", "lock"}
    assert {"tiny.heinfer", "log"} <= {path.name for path in files} - {frames.name} <= {"tiny.heinfer", "log"} | index
    requests = re.findall(rb"((?:GET|POST|PATCH|DELETE) /[a-z/]+)\S* HTTP/1\.1\r\n", tap.received)
    assert requests == [b"GET /models/tiny/manifest", b"POST /models/tiny/keys", b"POST /infer"]

    secret = secret_forms(client / "secret.key")
    assert holds_some_of((client / "secret.key").read_bytes(), secret[0])  # the search finds what is there
    server_side = [path.read_bytes() for path in files] + [bytes(tap.received)]
    assert len(tap.received) > 300_000
    for haystack in server_side:
        assert not any(holds_some_of(haystack, form) for form in secret)
