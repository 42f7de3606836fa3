"""A client against servers that lie, and errors as it tells them."""

import asyncio
import json
import socket
from base64 import b64encode
from collections.abc import Callable
from contextlib import contextmanager, suppress
from hashlib import sha256
from threading import Event, Thread

import httpx
import numpy as np
import pytest
from in_process import URL, Recorded, running_service
from owner import Owner
from tiny_model import WIDE, cleartext_scores, tiny_bundle

from heinfer.ckks.parameters import Parameters
from heinfer.errors import (
    OutOfRangeWarning,
    PayloadTooLargeError,
    ServiceError,
    ServiceUnavailableError,
    SettingError,
    UnauthorizedError,
    UnknownModelError,
    UntrustedManifestError,
    WorkerFailedError,
    WrongAnswerError,
)
from heinfer.formats.bindings import evaluation_binding, manifest_binding
from heinfer.formats.frame_fields import HEADER
from heinfer.formats.manifest import KeysPart
from heinfer_client import AsyncClient, Client, retries
from heinfer_client.trust import trusted_manifest

IMAGE = np.random.default_rng(0).random((4, 4))
MODEL = tiny_bundle()


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with running_service(tmp_path_factory.mktemp("bundles"), [MODEL]) as service:
        yield service


@pytest.fixture(autouse=True)
def _in_haste(monkeypatch):
    monkeypatch.setattr(retries, "FIRST_PAUSE", 0.001)


def scripted(answer: Callable[[httpx.Request], httpx.Response], url: str = "http://elsewhere") -> Client:
    return Client(url, model="tiny", transport=httpx.MockTransport(answer))


def manifest_with(change: Callable[[dict], None]) -> bytes:
    manifest = json.loads(MODEL.manifest.to_bytes())
    change(manifest)
    return json.dumps(manifest).encode()


def insecure(manifest: dict) -> None:
    manifest["parameters"] |= {
        "data_primes": [*WIDE.data_primes],
        "special_primes": [WIDE.special_prime],
        "digits": [1] * len(WIDE.data_primes),
    }


def tiny_ring(manifest: dict) -> None:
    manifest["parameters"]["ring_degree"] = 2048


def composite(manifest: dict) -> None:
    manifest["parameters"]["data_primes"][1] = 8192 * 1024 + 1


def absurd_output(manifest: dict) -> None:
    manifest["outputs"][0]["scale"] = 2.0**30


def absurd_input(manifest: dict) -> None:
    manifest["inputs"][0]["scale"] = 1e300


def tiny_input_scale(manifest: dict) -> None:
    manifest["inputs"][0]["scale"] = 5e-324


def tiny_output_scale(manifest: dict) -> None:
    manifest["outputs"][0]["scale"] = 1e-300


def large_output(manifest: dict) -> None:
    manifest["outputs"][0]["level"] = 2
    manifest["outputs"][0]["layout"]["ciphertexts"] = 2048


def many_keys(manifest: dict) -> None:
    manifest["key_sets"][0] |= {"steps": list(range(1, 2000)), "step_levels": [0] * 1999}


def another(manifest: dict) -> None:
    manifest["name"] = "another"


def unknown_field(manifest: dict) -> None:
    manifest["extra"] = 1


@pytest.mark.parametrize(
    "change",
    [
        insecure,
        tiny_ring,
        composite,
        absurd_output,
        absurd_input,
        tiny_input_scale,
        tiny_output_scale,
        large_output,
        many_keys,
        another,
        unknown_field,
    ],
)
def test_a_manifest_that_is_not_right_is_refused_before_a_key_is_made(change):
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(200, content=manifest_with(change))

    with scripted(answer) as client, pytest.raises(UntrustedManifestError):
        client.encrypt_and_predict(IMAGE)
    assert asked == ["/models/tiny/manifest"]


def test_keys_of_more_than_a_gibibyte_are_not_made():
    parameters = Parameters.create(8192, [28, 26, 26, 26, 26, 26], 30)
    keys = KeysPart.of(dict.fromkeys(range(1000), 5))  # 1.2 GB
    manifest = tiny_bundle(parameters=parameters).manifest.model_copy(update={"key_sets": (keys,)})
    with pytest.raises(UntrustedManifestError, match=f"at most {1 << 30} bytes of evaluation keys .* fewer rotation"):
        trusted_manifest(manifest.to_bytes(), "tiny")


def test_keys_that_take_hours_to_make_are_not_made_however_short_they_are_sent():
    parameters = Parameters.create(32768, [28, *[26] * 29], 30)
    keys = KeysPart.of(dict.fromkeys(range(1000), 0))
    manifest = tiny_bundle(parameters=parameters).manifest.model_copy(update={"key_sets": (keys,)})
    with pytest.raises(UntrustedManifestError, match=f"at most {1 << 32} bytes .* for all levels .* fewer rotation"):
        trusted_manifest(manifest.to_bytes(), "tiny")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b""),
        (200, b"{"),
        (200, b"[]"),
        (200, b"\xff" * 100),
        (200, b"[" * 100_000),
        (200, b"<!doctype html>"),
        (200, b'{"format": "another"}'),
        (204, b""),
        (404, b"<!doctype html>"),
        (404, b'{"detail": "Not Found"}'),
    ],
)
def test_what_is_no_service_is_told_by_its_address(status, body):
    def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, content=body)

    async def use() -> None:
        async with AsyncClient("http://elsewhere/v1", model="tiny", transport=httpx.MockTransport(answer)) as client:
            await client.prepare()

    for call in (scripted(answer, "http://elsewhere/v1").prepare, lambda: asyncio.run(use())):
        with pytest.raises(ServiceError) as caught:
            call()
        assert str(caught.value) == "there is no heinfer service at http://elsewhere/v1: check the address"
        assert (type(caught.value), caught.value.status) == (ServiceError, status)


def test_a_service_under_another_path_is_none(running):
    with (
        Client(f"{URL}/v1", model="tiny", transport=running.transport) as client,
        pytest.raises(ServiceError, match=f"there is no heinfer service at {URL}/v1: check the address"),
    ):
        client.prepare()
    with Client(URL, model="nothing", transport=running.transport) as client, pytest.raises(UnknownModelError):
        client.prepare()


def test_an_answer_without_end_is_cut_off():
    sent = 0

    def endless():
        nonlocal sent
        while True:
            sent += 1
            yield bytes(1 << 20)

    with (
        scripted(lambda _request: httpx.Response(200, content=endless())) as client,
        pytest.raises(ServiceError, match="longer than"),
    ):
        client.prepare()
    assert sent <= 6


def served(infer: Callable[[bytes], httpx.Response], keys: object = None) -> Callable[[httpx.Request], httpx.Response]:
    """A server that is right up to its answers to /infer."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/manifest"):
            return httpx.Response(200, content=MODEL.manifest.to_bytes())
        if request.url.path.endswith("/keys"):
            return httpx.Response(201, json=keys or {"keys": "k" * 43})
        return infer(request.read())

    return answer


def bound_to(inputs: bytes, frame: bytes) -> bytes:
    """A frame of outputs as if it were of inputs that came to such a server."""
    (field,) = (field for field in HEADER if field.name == "binding")
    binding = evaluation_binding(manifest_binding(MODEL.manifest.to_bytes()), "k" * 43, inputs)
    return frame[: field.offset] + binding + frame[field.end :]


def test_an_answer_to_another_request_is_refused_and_not_asked_for_again(running):
    """Not one of answers that have changed places, of another version, or of other keys, is taken for the right one."""
    query = {"model": "tiny", "manifest": sha256(MODEL.manifest.to_bytes()).hexdigest()}
    owner = Owner(MODEL)
    key_id = running.http.post("/models/tiny/keys", params=query, content=owner.keys).json()["keys"]
    answer = running.http.post("/infer", params=query | {"keys": key_id}, content=owner.inputs(IMAGE)).content
    transport = Recorded(httpx.MockTransport(served(lambda _body: httpx.Response(200, content=answer))))
    with Client("http://elsewhere", model="tiny", transport=transport) as client, pytest.raises(WrongAnswerError):
        client.encrypt_and_predict(IMAGE)
    assert transport.count("/infer") == 1


@pytest.mark.parametrize("keys", [{"keys": "short"}, {"keys": "../" * 10}, {"keys": 1}, {"id": "k" * 43}, [1]])
def test_a_malformed_key_id_is_refused(keys):
    with scripted(served(lambda _body: httpx.Response(500), keys)) as client, pytest.raises(ServiceError):
        client.prepare()


@pytest.mark.parametrize(
    "change", [lambda _: b"", lambda good: good[:-1], lambda good: good + b"\0", lambda good: b"X" + good[1:]]
)
def test_a_result_that_is_none_is_refused(running, change):
    def infer(body: bytes) -> httpx.Response:
        return httpx.Response(200, content=change(bound_to(body, good)))

    with Client(URL, model="tiny", transport=running.transport) as honest:
        honest.prepare()
        ready, body = honest._session._ready, Owner(MODEL).inputs(IMAGE)
        query = {"model": "tiny", "manifest": ready.codec.digest, "keys": ready.key_id}
        good = running.http.post("/infer", params=query, content=body).content
    with scripted(served(infer)) as client, pytest.raises(ServiceError, match=r"no result of this model|longer than"):
        client.encrypt_and_predict(IMAGE)


def test_what_it_decrypts_changes_nothing_in_what_it_does(running):
    """A result under another key decrypts to noise: it is returned with its mark, and nothing is asked again."""
    other, query = Owner(MODEL), {"model": "tiny", "manifest": sha256(MODEL.manifest.to_bytes()).hexdigest()}
    key_id = running.http.post("/models/tiny/keys", params=query, content=other.keys).json()["keys"]
    answer = running.http.post("/infer", params=query | {"keys": key_id}, content=other.inputs(IMAGE)).content
    transport = Recorded(httpx.MockTransport(served(lambda body: httpx.Response(200, content=bound_to(body, answer)))))
    with Client("http://elsewhere", model="tiny", transport=transport) as client, pytest.warns(OutOfRangeWarning):
        prediction = client.encrypt_and_predict(IMAGE)
    assert not prediction.in_range
    assert not np.allclose(prediction.scores, cleartext_scores(IMAGE), atol=0.5)
    assert np.isnan(prediction.server_seconds)
    assert transport.paths == ["/models/tiny/manifest", "/models/tiny/keys", "/infer", f"/keys/{'k' * 43}"]


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("unknown-model", 404, UnknownModelError),
        ("payload-too-large", 413, PayloadTooLargeError),
        ("worker-failed", 503, WorkerFailedError),
        ("service-unavailable", 503, ServiceUnavailableError),
        ("parameter-mismatch", 400, ServiceError),
        ("of-the-future", 418, ServiceError),
    ],
)
def test_problems_become_typed_errors(code, status, error):
    problem = {"code": code, "detail": "what\x1b[2J happened", "request_id": "abc"}
    infer = served(lambda _body: httpx.Response(status, json=problem))
    with scripted(infer) as client, pytest.raises(ServiceError) as caught:
        client.encrypt_and_predict(IMAGE)
    assert type(caught.value) is error
    assert (caught.value.status, caught.value.server_code) == (status, code)
    tried = f" (given up after {retries.TRIES} tries)" if error is ServiceUnavailableError else ""
    assert str(caught.value) == f"what[2J happened (request abc){tried}"


@pytest.mark.parametrize(
    ("api_key", "text"),
    [
        (None, "the service needs an API key: give one as api_key= (heinfer predict: --api-key) or in HEINFER_API_KEY"),
        ("old", "the service does not take this API key (wrong or revoked): give another as api_key= "),
    ],
)
def test_who_is_not_let_in_is_told_what_to_give(api_key, text, monkeypatch):
    monkeypatch.delenv("HEINFER_API_KEY", raising=False)

    def answer(request: httpx.Request) -> httpx.Response:
        problem = {"code": "unauthorized", "detail": "send `Authorization: Bearer KEY`", "request_id": "abc"}
        return httpx.Response(401, json=problem)

    async def use() -> None:
        async with AsyncClient(URL, model="tiny", api_key=api_key, transport=httpx.MockTransport(answer)) as client:
            await client.prepare()

    client = Client(URL, model="tiny", api_key=api_key, transport=httpx.MockTransport(answer))
    for call in (client.prepare, lambda: asyncio.run(use())):
        with pytest.raises(UnauthorizedError) as caught:
            call()
        assert str(caught.value).startswith(text)
        assert str(caught.value).endswith(" (request abc)")
        assert (caught.value.status, caught.value.server_code) == (401, "unauthorized")


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"code": 1}', b"[" * 50_000, b""])
def test_an_error_that_is_no_problem_is_one_all_the_same(body):
    with (
        scripted(lambda _request: httpx.Response(502, content=body)) as client,
        pytest.raises(ServiceError, match="HTTP status 502") as caught,
    ):
        client.prepare()
    assert caught.value.server_code == "service-unavailable"


def test_a_server_that_is_not_there_is_unavailable():
    def answer(_request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused")

    with scripted(answer) as client, pytest.raises(ServiceUnavailableError, match="is the service running"):
        client.prepare()


@contextmanager
def dribbling_server(start: bytes):
    """A server that answers with a start, and then a byte now and then for ever."""
    leave = Event()

    def serve() -> None:
        with suppress(OSError), listener.accept()[0] as connection:
            connection.sendall(start)
            while not leave.wait(0.02):
                connection.sendall(b"y")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        leave.set()
        thread.join()


DRIBBLES = [b"", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n"]


@pytest.mark.parametrize("start", DRIBBLES)
def test_a_server_that_dribbles_is_given_up(start):
    with (
        dribbling_server(start) as url,
        Client(url, model="tiny", timeout=0.5) as client,
        pytest.raises(ServiceUnavailableError, match=r"no whole answer from http://127\.0\.0\.1:\d+ within 0\.5 sec"),
    ):
        client.prepare()


@pytest.mark.parametrize("start", DRIBBLES)
def test_the_asynchronous_twin_gives_it_up_as_well(start):
    async def use(url: str) -> None:
        async with AsyncClient(url, model="tiny", timeout=0.5) as client:
            with pytest.raises(ServiceUnavailableError, match="no whole answer"):
                await client.prepare()

    with dribbling_server(start) as url:
        asyncio.run(use(url))


def test_https_to_a_port_that_speaks_http_is_told():
    async def use(url: str) -> None:
        async with AsyncClient(url, model="tiny") as client:
            await client.prepare()

    calls = (lambda url: Client(url, model="tiny").prepare(), lambda url: asyncio.run(use(url)))
    for call in calls:
        with (
            dribbling_server(b"HTTP/1.1 400 Bad Request\r\n\r\n") as url,
            pytest.raises(ServiceUnavailableError, match=r"no answer from https://.*: the service may speak http, not"),
        ):
            call(url.replace("http", "https"))


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), None, "5"])
def test_a_time_out_that_is_none_is_refused(timeout):
    for kind in (Client, AsyncClient):
        with pytest.raises(SettingError, match="time-out"):
            kind("http://elsewhere", model="tiny", timeout=timeout)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"model": ""}, "^model must be the name"),
        ({"model": None}, "^model must be the name"),
        ({"api_key": 5}, "^the API key must be the string"),
        ({"api_key": b"secret"}, "^the API key must be the string"),
        ({"keys_path": 5}, "^keys_path must be the path of a file, not 5"),
        ({"keys_path": "/"}, "^keys_path must be the path of a file, not '/'"),
    ],
)
def test_an_argument_of_a_wrong_type_is_named(arguments, text):
    for kind in (Client, AsyncClient):
        with pytest.raises(SettingError, match=text) as caught:
            kind("http://elsewhere", **({"model": "tiny"} | arguments))
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        None,
        5,
        b"http://secret",
        "",
        "localhost:8000",
        "ftp://host",
        "http://",
        "http://[::1",
        "http://host/?a=b",
        "http://host/#a",
        "http://me:secret/1@host",
        "http://me:1234/secret@host",
        "http://me:secret?@host",
        "http://me:secret\0@host",
    ],
)
def test_a_malformed_url_is_refused_and_not_echoed(url):
    for kind in (Client, AsyncClient):
        with pytest.raises(SettingError, match="URL") as caught:
            kind(url, model="tiny")
        assert "secret" not in str(caught.value)


def test_credentials_in_the_url_are_sent_and_neither_shown_nor_stored(tmp_path):
    good = served(lambda _body: httpx.Response(502))
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append((str(request.url), request.headers["authorization"]))
        if request.url.path.endswith("/infer"):
            raise httpx.ConnectError("connection refused")
        return good(request)

    path, transport = tmp_path / "key", httpx.MockTransport(answer)
    with (
        Client("http://user:pass%40word@elsewhere", model="tiny", keys_path=path, transport=transport) as client,
        pytest.raises(ServiceUnavailableError) as caught,
    ):
        client.encrypt_and_predict(IMAGE)
    authorization = "Basic " + b64encode(b"user:pass@word").decode()
    assert {sent for _, sent in asked} == {authorization}
    told = [str(caught.value), *(url for url, _ in asked), (tmp_path / "key.registration").read_text()]
    assert not any("word" in text or "user" in text for text in told)
    assert "http://elsewhere" in told[0]


def test_nothing_is_known_before_it_is_asked():
    client = Client("http://elsewhere", model="tiny")
    with pytest.raises(SettingError, match="prepare"):
        client.key_bytes  # noqa: B018


def test_a_model_name_cannot_leave_its_place_in_the_path():
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.raw_path)
        return httpx.Response(404)

    with (
        Client("http://elsewhere", model="../keys?x", transport=httpx.MockTransport(answer)) as client,
        pytest.raises(ServiceError),
    ):
        client.prepare()
    assert asked == [b"/models/..%2Fkeys%3Fx/manifest"]
