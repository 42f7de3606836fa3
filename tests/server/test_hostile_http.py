"""Hostile bytes over real HTTP: each is refused with a stable code in bounded time, and the next good request works."""

import resource
import socket
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlencode

import httpx
import numpy as np
import pytest
from asking import of, to
from hostile import Mutation, mutations
from owner import Owner
from server_process import ServerProcess, server_process, stopped, wait_until
from tiny_model import WIDE, cleartext_scores, tiny_bundle

from heinfer.formats.frame_fields import ciphertext_fields, key_fields
from heinfer_server.web.connections import HEAD_SECONDS

pytestmark = pytest.mark.slow

IMAGE = np.linspace(0, 1, 16).reshape(4, 4)
TINY = tiny_bundle()
TWIN = tiny_bundle("twin")  # takes the very same keys
WIDE_MODEL = tiny_bundle("wide", parameters=WIDE)
MODELS = {"tiny": TINY, "twin": TWIN, "wide": WIDE_MODEL}

CODES = {
    "bad-frame": 400,
    "frame-length": 400,
    "newer-format": 400,
    "frame-binding": 400,
    "manifest-required": 400,
    "unknown-manifest": 409,
    "residue-range": 400,
    "ciphertext-mismatch": 400,
    "key-set-mismatch": 400,
    "unknown-model": 404,
    "unknown-keys": 404,
    "payload-too-large": 413,
    "request-timeout": 408,
    "unknown-job": 404,
    "job-not-done": 409,
    "idempotency-conflict": 409,
    "deadline-exceeded": 504,
    "ambiguous-length": 400,
    "bad-request": 422,
    "unknown-upload": 404,
    "upload-offset": 409,
    "upload-incomplete": 409,
    "upload-digest": 400,
    "busy": 429,
    "service-unavailable": 503,
}
SECONDS = 5.0
SECONDS_PER_MIB = 1.5


def until_taken(ask: Callable[[], httpx.Response]) -> httpx.Response:
    """Ask again while the service is busy with what tests have sent before, as a client does."""
    ends = time.monotonic() + SECONDS
    while (answer := ask()).status_code == CODES["busy"] and time.monotonic() < ends:
        time.sleep(0.05)
    return answer


class Attacked:
    """A server, a good client of it, and how to check that the one still serves the other."""

    def __init__(self, server: ServerProcess, http: httpx.Client) -> None:
        self.server = server
        self.http = http
        self.owner = Owner(TINY)
        self.inputs = self.owner.inputs(IMAGE)
        self.key_id = self.register("tiny", self.owner.keys).json()["keys"]
        self.pid = server.worker()

    def register(self, model: str, body: bytes) -> httpx.Response:
        return self.http.post(f"/models/{model}/keys", params=of(MODELS[model]), content=body)

    def infer(self, body: bytes, model: str = "tiny", key_id: str | None = None) -> httpx.Response:
        query = {**of(MODELS.get(model, TINY)), "model": model, "keys": key_id or self.key_id}
        return self.http.post("/infer", params=query, content=body)

    def begin_job(self, body: bytes, idempotency_key: str) -> httpx.Response:
        query, headers = to(self.key_id), {"Idempotency-Key": idempotency_key}
        return until_taken(lambda: self.http.post("/jobs", params=query, content=body, headers=headers))

    def memory(self) -> int:
        """kB that the service's own process has in memory."""
        status = Path(f"/proc/{self.server.process.pid}/status").read_text()
        (resident,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
        return resident

    def assert_still_works(self) -> None:
        answer = until_taken(lambda: self.infer(self.inputs))
        assert answer.status_code == 200
        assert self.owner.scores(answer.content) == pytest.approx(cleartext_scores(IMAGE), abs=0.05)
        assert self.server.worker() == self.pid  # nothing died of it


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    with (
        server_process(folder, [TINY, TWIN, WIDE_MODEL], body_seconds_per_mib=SECONDS_PER_MIB) as server,
        httpx.Client(base_url=server.url, timeout=SECONDS) as http,
    ):
        yield Attacked(server, http)


def assert_refused(answer: httpx.Response, what: str, *codes: str) -> None:
    assert answer.headers["content-type"] == "application/problem+json", what
    code = answer.json()["code"]
    assert CODES[code] == answer.status_code, what
    assert code in codes or not codes, what


# Frames ----------------------------------------------------------------------------------------


def hostile_inputs(attacked: Attacked) -> list[Mutation]:
    parameters, plan = attacked.owner.codec.parameters, TINY.manifest.input
    fields = ciphertext_fields(parameters, count=1, level=plan.level, seeded=True)
    return list(mutations(fields, attacked.inputs, parameters.ring_degree))


def hostile_keys(attacked: Attacked) -> list[Mutation]:
    parameters = attacked.owner.codec.parameters
    fields = key_fields(parameters, TINY.manifest.keys.levels)
    return list(mutations(fields, attacked.owner.keys, parameters.ring_degree))


def test_every_mutation_of_the_inputs(attacked):
    found = hostile_inputs(attacked)
    assert len(found) > 50
    for mutation in found:
        answer = attacked.infer(mutation.data)
        if mutation.detectable:
            assert_refused(answer, mutation.label)
        else:
            assert answer.status_code == 200, mutation.label  # a ciphertext of noise
        attacked.assert_still_works()


def test_every_mutation_of_the_inputs_of_a_job_is_refused_before_there_is_one(attacked):
    for number, mutation in enumerate(hostile_inputs(attacked)):
        answer = attacked.begin_job(mutation.data, f"mutation-{number}")
        if mutation.detectable:
            assert_refused(answer, mutation.label)
        else:
            assert answer.status_code == 202, mutation.label
            attacked.http.delete(answer.headers["location"])
    attacked.assert_still_works()


@pytest.mark.parametrize("job", ["0" * 32, "..%2f..%2fkeys", "%00", "x" * 64, "x" * 65, "%F0%9F%92%A5"])
def test_jobs_that_there_are_not(attacked, job):
    for method, path in (("GET", ""), ("GET", "/result"), ("GET", "/events"), ("DELETE", "")):
        answer = attacked.http.request(method, f"/jobs/{job}{path}")
        assert answer.status_code in (404, 422), path
        assert answer.headers["content-type"] == "application/problem+json"


def test_jobs_without_end_take_no_memory(attacked):
    before = attacked.memory()
    for number in range(300):
        answer = attacked.begin_job(attacked.inputs, f"many-{number}")
        if answer.status_code != 202:
            assert_refused(answer, str(number), "busy")
    kept = attacked.http.get("/healthz").status_code
    assert kept == 200
    wait_until(lambda: attacked.infer(attacked.inputs).status_code == 200, 30)
    assert attacked.memory() < before + 30_000
    attacked.assert_still_works()


@pytest.mark.parametrize("key", ["x" * 129, "a b", "\u00e9", "a\tb"])
def test_malformed_idempotency_keys(attacked, key):
    headers = {"Idempotency-Key": key.encode()}
    query = to(attacked.key_id)
    answer = attacked.http.post("/jobs", params=query, content=attacked.inputs, headers=headers)
    assert_refused(answer, key, "bad-request")
    assert key not in answer.text


def test_listeners_that_vanish_leave_nothing(attacked):
    """Events of a job are asked for, and nobody listens."""
    for number in range(20):
        job = attacked.begin_job(attacked.inputs, f"vanishing-{number}").headers["location"]
        with socket.create_connection(
            (attacked.http.base_url.host, attacked.http.base_url.port), SECONDS
        ) as connection:
            connection.sendall(f"GET {job}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    attacked.assert_still_works()


def test_every_mutation_of_the_keys(attacked):
    found = hostile_keys(attacked)
    assert len(found) > 200
    for mutation in found:
        answer = attacked.register("tiny", mutation.data)
        if mutation.detectable:
            assert_refused(answer, mutation.label)
        else:
            key_id = answer.json()["keys"]  # keys that switch to noise
            assert attacked.infer(attacked.inputs, key_id=key_id).status_code == 200, mutation.label
        attacked.assert_still_works()


def test_random_bytes(attacked):
    rng = np.random.default_rng(0)
    for length in (0, 1, 47, 48, 49, 1000, len(attacked.inputs)):
        assert_refused(attacked.infer(rng.bytes(length)), str(length), "bad-frame", "frame-length")
        assert_refused(attacked.register("tiny", rng.bytes(length)), str(length), "bad-frame", "frame-length")
    attacked.assert_still_works()


def test_a_frame_in_the_place_of_another(attacked):
    assert_refused(attacked.register("tiny", attacked.inputs), "inputs as keys", "bad-frame")
    assert_refused(attacked.infer(attacked.owner.keys[: len(attacked.inputs)]), "keys as inputs", "bad-frame")
    result = attacked.infer(attacked.inputs).content
    assert_refused(attacked.infer(result), "a result as inputs", "frame-binding")
    attacked.assert_still_works()


# Keys in pieces --------------------------------------------------------------------------------


def begin(attacked: Attacked, body: bytes, model: str = "tiny", **changes: object) -> httpx.Response:
    query = {**of(MODELS[model]), "size": len(body), "sha256": sha256(body).hexdigest(), **changes}
    return attacked.http.post(f"/models/{model}/uploads", params=query)


def send(attacked: Attacked, upload_id: str, offset: object, piece: bytes) -> httpx.Response:
    return attacked.http.patch(f"/uploads/{upload_id}", params={"offset": offset}, content=piece)


def test_every_fifth_mutation_of_the_keys_in_pieces(attacked):
    """The checks are those of whole frames; what must hold here is that no way around them leads through pieces."""
    size = len(attacked.owner.keys)
    for mutation in hostile_keys(attacked)[::5]:
        answer = begin(attacked, mutation.data)
        if len(mutation.data) != size:
            assert_refused(answer, mutation.label, "frame-length")
            continue
        if answer.json()["is_registered"]:
            assert not mutation.detectable, mutation.label  # it came whole in the test before
            continue
        upload_id = answer.json()["upload"]
        cut = size // 3
        assert send(attacked, upload_id, 0, mutation.data[:cut]).status_code == 200
        assert send(attacked, upload_id, cut, mutation.data[cut:]).status_code == 200
        answer = attacked.http.post(f"/uploads/{upload_id}")
        if mutation.detectable:
            assert_refused(answer, mutation.label)
            assert_refused(attacked.http.get(f"/uploads/{upload_id}"), mutation.label, "unknown-upload")
        else:
            assert answer.status_code == 201, mutation.label
    attacked.assert_still_works()


def test_pieces_in_random_order_never_make_other_keys(attacked):
    """Replayed, reordered, overlapping pieces of random sizes: only the next one is taken, and the keys come out."""
    rng = np.random.default_rng(0)
    keys = attacked.owner.codec.evaluation_keys(attacked.owner.secret, lambda _done: None)
    upload_id = begin(attacked, keys).json()["upload"]
    at = 0
    while at < len(keys):
        others = (0, at - 1, at + 1, at // 2, len(keys), int(rng.integers(len(keys))))
        for offset in others:
            if offset != at and offset >= 0:
                piece = keys[offset : offset + int(rng.integers(1, 100_000))] or b"x"
                assert_refused(send(attacked, upload_id, offset, piece), str(offset), "upload-offset")
        assert_refused(attacked.http.post(f"/uploads/{upload_id}"), "too early", "upload-incomplete")
        assert_refused(send(attacked, upload_id, at, keys[at:] + b"\0"), "too long", "payload-too-large")
        at += int(rng.integers(1, 100_000))
        answer = send(attacked, upload_id, attacked.http.get(f"/uploads/{upload_id}").json()["offset"], keys[:0])
        piece = keys[answer.json()["offset"] : at]
        assert send(attacked, upload_id, answer.json()["offset"], piece).json()["offset"] == min(at, len(keys))
    key_id = attacked.http.post(f"/uploads/{upload_id}").json()["keys"]
    answer = attacked.infer(attacked.inputs, key_id=key_id)
    assert attacked.owner.scores(answer.content) == pytest.approx(cleartext_scores(IMAGE), abs=0.05)
    attacked.assert_still_works()


def test_announcements_of_everything_but_the_right_thing(attacked):
    keys = attacked.owner.keys
    for size in (-1, 0, 1, len(keys) - 1, len(keys) + 1, 2**31, 2**47, 2**48, 2**64, 10**30, "x", ""):
        assert_refused(begin(attacked, keys, size=size), str(size), "frame-length", "bad-request")
    for digest in ("", "0" * 63, "0" * 65, "G" * 64, "../../etc/passwd", "\0" * 64):
        assert_refused(begin(attacked, keys, sha256=digest), digest, "bad-request")
    for upload_id in ("x", "0" * 64, "0" * 65, "..", "%2e%2e%2fkeys", attacked.key_id):
        for offset in (-1, 0, 2**48, 2**64, "x"):
            answer = send(attacked, upload_id, offset, b"x")
            assert answer.status_code in {404, 405, 422}, upload_id
    attacked.assert_still_works()


def test_announcements_without_end_take_no_memory(attacked):
    before = attacked.memory()
    keys = attacked.owner.keys
    for number in range(200):
        answer = begin(attacked, keys, sha256=f"{number:064x}")
        if answer.status_code != 201:
            assert_refused(answer, str(number), "busy")
    assert attacked.memory() - before < 20_000  # kB
    for number in range(200):
        found = begin(attacked, keys, sha256=f"{number:064x}")
        if found.status_code == 201:
            attacked.http.delete(f"/uploads/{found.json()['upload']}")
    attacked.assert_still_works()


# Requests --------------------------------------------------------------------------------------


def test_models_and_keys_that_do_not_belong_together(attacked):
    wide = Owner(WIDE_MODEL)
    wide_id = attacked.register("wide", wide.keys).json()["keys"]
    assert_refused(attacked.infer(attacked.inputs, "nothing"), "no such model", "unknown-model")
    assert_refused(attacked.infer(attacked.inputs, "../tiny"), "a path", "unknown-model")
    assert_refused(attacked.infer(attacked.inputs, key_id="0" * 43), "no such keys", "unknown-keys")
    assert_refused(attacked.infer(attacked.inputs, "twin"), "another model's inputs", "frame-binding")
    assert_refused(attacked.infer(attacked.inputs, key_id=wide_id), "another model's keys", "key-set-mismatch")
    assert_refused(attacked.infer(attacked.inputs, "wide", wide_id), "other parameters", "frame-binding")
    assert_refused(attacked.register("wide", attacked.owner.keys), "other parameters", "frame-binding")
    assert_refused(attacked.register("tiny", wide.keys), "other parameters", "payload-too-large")
    for query in ({}, {"model": "tiny"}, {"keys": "x"}, to("x" * 1000)):
        assert_refused(attacked.http.post("/infer", params=query, content=b""), str(query), "bad-request")
    attacked.assert_still_works()


def test_manifests_that_are_none(attacked):
    good = to(attacked.key_id)
    for path in ("/infer", "/jobs", "/models/tiny/keys", "/models/tiny/uploads"):
        query = {**good, "size": 1, "sha256": "0" * 64}
        for digest in ("", "x", "0" * 63, "0" * 65, "G" * 64, good["manifest"].upper(), "../" * 21 + "0", "\0" * 64):
            answer = attacked.http.post(path, params={**query, "manifest": digest}, content=b"x")
            assert_refused(answer, digest, "bad-request")
        for digest, code in (("0" * 64, "unknown-manifest"), (of(TWIN)["manifest"], "unknown-manifest")):
            answer = attacked.http.post(path, params={**query, "manifest": digest}, content=b"x")
            assert_refused(answer, digest, code)
        del query["manifest"]
        assert_refused(attacked.http.post(path, params=query, content=b"x"), path, "manifest-required")
    attacked.assert_still_works()


def test_a_compressed_body_is_not_inflated(attacked):
    bomb = zlib.compress(bytes(50_000_000))
    headers = {"Content-Encoding": "deflate", "Content-Length": str(len(bomb))}
    answer = attacked.http.post("/models/tiny/keys", params=of(), content=bomb, headers=headers)
    assert_refused(answer, "bomb", "bad-frame")
    attacked.assert_still_works()


# Transport -------------------------------------------------------------------------------------


class Wire:
    """A connection on which a test writes what it likes."""

    def __init__(self, attacked: Attacked, *headers: str, target: str | None = None) -> None:
        url = httpx.URL(attacked.server.url)
        self.socket = socket.create_connection((url.host, url.port or 80), timeout=SECONDS)
        path = target or f"/infer?{urlencode(to(attacked.key_id))}"
        self.send("\r\n".join([f"POST {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode())

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> bytes:
        """Everything that comes until the server closes or the time is up."""
        received = b""
        try:
            while chunk := self.socket.recv(1 << 16):
                received += chunk
        except (TimeoutError, ConnectionResetError):
            pass
        self.socket.close()
        return received


def assert_wire_refused(answer: bytes, code: str) -> None:
    assert answer.startswith(b"HTTP/1.1 %d " % CODES[code])
    assert f'"code":"{code}"'.encode() in answer


def test_a_length_that_is_declared_too_large_is_refused_before_the_body_comes(attacked):
    for length in (len(attacked.inputs) + 1, 10**12, 10**18):
        started = time.monotonic()
        assert_wire_refused(Wire(attacked, f"Content-Length: {length}").answer(), "payload-too-large")
        assert time.monotonic() - started < SECONDS / 2
    attacked.assert_still_works()


def test_a_chunked_body_without_end_is_cut_off(attacked):
    wire = Wire(attacked, "Transfer-Encoding: chunked")
    chunk = b"10000\r\n" + bytes(0x10000) + b"\r\n"
    sent = 0
    try:
        while sent < 100_000_000:
            wire.send(chunk)
            sent += len(chunk)
    except OSError:
        pass
    assert sent < 20_000_000  # what lies in buffers on the way
    answer = wire.answer()
    if answer:  # the answer may be lost when the connection breaks under what is still being sent
        assert_wire_refused(answer, "payload-too-large")
    attacked.assert_still_works()


def test_a_chunked_body_one_byte_too_long_is_refused(attacked):
    wire = Wire(attacked, "Transfer-Encoding: chunked")
    body = attacked.inputs + b"\0"
    wire.send(f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n")
    assert_wire_refused(wire.answer(), "payload-too-large")
    attacked.assert_still_works()


@pytest.mark.parametrize(("size", "status"), [(1, 400), (2000, 200)])
def test_chunks_are_as_good_as_a_body_unless_they_are_absurd(attacked, size, status):
    wire = Wire(attacked, "Transfer-Encoding: chunked", "Connection: close")
    pieces = [attacked.inputs[start : start + size] for start in range(0, len(attacked.inputs), size)]
    with suppress(OSError):
        wire.send(b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n")
    answer = wire.answer()
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()) or (status != 200 and not answer)  # cut off while it sends
    attacked.assert_still_works()


@pytest.mark.parametrize("size", [b"x", b"-1", b"ffffffffffffffffffffffff", b"1" * 100])
def test_a_chunk_of_malformed_size_is_no_request(attacked, size):
    wire = Wire(attacked, "Transfer-Encoding: chunked")
    wire.send(size + b"\r\n")
    assert wire.answer().startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 413 "))
    attacked.assert_still_works()


@pytest.mark.parametrize(
    "headers", [("Content-Length: -1",), ("Content-Length: 1", "Content-Length: 2"), ("X: " + "y" * 200_000,)]
)
def test_malformed_headers_are_no_request(attacked, headers):
    assert Wire(attacked, *headers).answer().startswith(b"HTTP/1.1 4")
    attacked.assert_still_works()


def test_what_a_proxy_may_take_for_two_requests_is_refused_and_nothing_after_it_answered(attacked):
    smuggled = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    wire = Wire(attacked, f"Content-Length: {5 + len(smuggled)}", "Transfer-Encoding: chunked")
    wire.send(b"0\r\n\r\n" + smuggled)
    answer = wire.answer()
    assert_wire_refused(answer, "ambiguous-length")
    assert answer.count(b"HTTP/1.1 ") == 1
    attacked.assert_still_works()


def test_a_body_that_breaks_off_leaves_nothing(attacked):
    for _ in range(100):
        wire = Wire(attacked, f"Content-Length: {len(attacked.inputs)}")
        wire.send(attacked.inputs[:1000])
        wire.socket.close()
    attacked.assert_still_works()


def test_requests_whose_clients_went_away_are_not_evaluated(attacked):
    with stopped(attacked.pid):
        headers = (f"Content-Length: {len(attacked.inputs)}", "Connection: close")
        stays, *leave = (Wire(attacked, *headers) for _ in range(6))
        for wire in (stays, *leave):
            wire.send(attacked.inputs)
        before = attacked.server.log.count("client went away")
        for wire in leave:
            wire.socket.close()
        # One of them all is with the worker, and most likely the first.
        wait_until(lambda: attacked.server.log.count("client went away") >= before + len(leave) - 1, 30)
    assert stays.answer().startswith(b"HTTP/1.1 200 ")
    attacked.assert_still_works()


def test_a_slow_body_is_given_up(attacked):
    started = time.monotonic()
    wire = Wire(attacked, f"Content-Length: {len(attacked.inputs)}")
    try:
        while time.monotonic() - started < SECONDS:
            wire.send(b"x")
            time.sleep(0.1)
    except OSError:
        pass
    wire.socket.close()
    assert time.monotonic() - started < SECONDS_PER_MIB + 1
    attacked.assert_still_works()


def test_a_body_that_never_comes_is_given_up(attacked):
    started = time.monotonic()
    assert_wire_refused(Wire(attacked, f"Content-Length: {len(attacked.inputs)}").answer(), "request-timeout")
    assert time.monotonic() - started < SECONDS_PER_MIB + 1
    attacked.assert_still_works()


def test_slow_registrations_fill_the_house_and_leave_it(attacked):
    target = f"/models/tiny/keys?{urlencode(of())}"
    headers = (f"Content-Length: {len(attacked.owner.keys)}", "Connection: close")
    wires = [Wire(attacked, *headers, target=target) for _ in range(8)]
    answers = [wire.answer() for wire in wires]
    assert {answer.split(b" ")[1] for answer in answers} == {b"408"}  # each had its turn, and did not use it
    assert attacked.register("tiny", attacked.owner.keys).status_code == 201
    attacked.assert_still_works()


def test_heads_that_never_end_are_closed_and_do_not_fill_the_house(tmp_path):
    with server_process(tmp_path, [TINY]) as server:
        files = 700
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (files, files))
        url = httpx.URL(server.url)
        ends = time.monotonic() + HEAD_SECONDS
        connections = [socket.create_connection((url.host, url.port or 80)) for _ in range(files + 100)]
        for connection in connections:
            with suppress(OSError):  # those beyond the bound were closed when others came
                connection.sendall(b"GET /healthz HTTP/1.1\r\nHo")
        assert httpx.get(f"{server.url}/healthz", timeout=SECONDS).status_code == 200  # the longest idle gives way
        time.sleep(HEAD_SECONDS / 2)
        for connection in connections:
            with suppress(OSError):
                connection.sendall(b"s")  # a byte now and then wins no time
        time.sleep(max(0.0, ends + 2 - time.monotonic()))
        assert httpx.get(f"{server.url}/healthz", timeout=SECONDS).status_code == 200
        assert "out of system resource" not in server.log
        for connection in connections:
            connection.close()


def test_memory_has_not_grown_with_what_was_thrown_at_it(attacked):
    status = Path(f"/proc/{attacked.server.process.pid}/status").read_text()
    (peak,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    assert peak < 500_000  # kB
