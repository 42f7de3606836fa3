"""Evaluation keys in pieces: every order but the right one is refused, and the client gets through what goes wrong."""

import asyncio
from collections import Counter
from contextlib import suppress
from hashlib import sha256

import httpx
import numpy as np
import pytest
from asking import of, registered, to
from in_process import URL, Recorded, RunningService, running_service
from owner import Owner
from tiny_model import cleartext_scores, tiny_bundle

from heinfer.errors import (
    BusyError,
    PayloadTooLargeError,
    ServiceError,
    ServiceUnavailableError,
    UnknownUploadError,
    UploadDigestError,
    UploadIncompleteError,
    UploadOffsetError,
)
from heinfer_client import AsyncClient, Client, retries, upload
from heinfer_server.admission.access import DEFAULT_TENANT
from heinfer_server.keys.uploads import (
    ABANDONED_SECONDS,
    CHUNK_BYTES,
    STILL_SECONDS,
    UPLOADS_AT_ONCE,
    UPLOADS_OF_A_TENANT,
    Uploads,
)
from heinfer_server.web.dependencies import tenant_of

MODEL = tiny_bundle()
TWIN = tiny_bundle("twin")
IMAGE = np.linspace(0, 1, 16).reshape(4, 4)
PIECE = 50_000
A_BYTE_A_MINUTE = 60.0 * (1 << 20)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with running_service(tmp_path_factory.mktemp("bundles"), [MODEL, TWIN]) as service:
        yield service


@pytest.fixture
def http(running: RunningService):
    yield running.http
    running.service.uploads.purge({DEFAULT_TENANT.id})


@pytest.fixture(scope="module")
def owner() -> Owner:
    return Owner(MODEL)


@pytest.fixture
def in_pieces(monkeypatch):
    """A client that finds these small keys long."""
    monkeypatch.setattr(upload, "WHOLE_BYTES", PIECE)
    monkeypatch.setattr(upload, "PIECE_BYTES", PIECE)
    monkeypatch.setattr(retries, "FIRST_PAUSE", 0.001)


def begin(http: httpx.Client, body: bytes, model: str = "tiny", **changes: object) -> httpx.Response:
    query = {**of(), "size": len(body), "sha256": sha256(body).hexdigest(), **changes}
    return http.post(f"/models/{model}/uploads", params=query)


def send(http: httpx.Client, upload_id: str, offset: int, piece: bytes) -> httpx.Response:
    return http.patch(f"/uploads/{upload_id}", params={"offset": offset}, content=piece)


def other_keys(keys: bytes, number: int = 0) -> bytes:
    """As good as any keys, for who does not look into them."""
    return keys[:-4] + number.to_bytes(4, "little")


def assert_problem(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"


# The service -----------------------------------------------------------------------------------


def test_keys_in_pieces_are_keys(http, owner):
    keys = Owner(MODEL).keys  # that nobody has registered
    state = begin(http, keys)
    assert state.status_code == 201
    assert (state.json()["offset"], state.json()["is_registered"]) == (0, False)
    upload_id = state.json()["upload"]
    for offset in range(0, len(keys), PIECE):
        assert http.get(f"/uploads/{upload_id}").json()["offset"] == offset
        answer = send(http, upload_id, offset, keys[offset : offset + PIECE])
        assert (answer.status_code, answer.json()["offset"]) == (200, min(offset + PIECE, len(keys)))
    answer = http.post(f"/uploads/{upload_id}")
    assert (answer.status_code, answer.json()["keys"]) == (201, upload_id)
    assert answer.headers["location"] == f"/keys/{upload_id}"
    assert_problem(http.get(f"/uploads/{upload_id}"), 404, "unknown-upload")
    assert http.post(f"/uploads/{upload_id}").json() == answer.json()  # its answer may have been lost
    assert begin(http, keys).json() == {
        "upload": upload_id,
        "size": len(keys),
        "offset": len(keys),
        "is_registered": True,
    }
    assert registered(http, keys) == upload_id  # the same in one piece


def test_keys_that_came_in_pieces_evaluate(http):
    owner = Owner(MODEL)
    upload_id = begin(http, owner.keys).json()["upload"]
    send(http, upload_id, 0, owner.keys)
    key_id = http.post(f"/uploads/{upload_id}").json()["keys"]
    answer = http.post("/infer", params=to(key_id), content=owner.inputs(IMAGE))
    assert owner.scores(answer.content) == pytest.approx(cleartext_scores(IMAGE), abs=0.05)


def test_beginning_again_goes_on(http, owner):
    keys = other_keys(owner.keys, 1)
    upload_id = begin(http, keys).json()["upload"]
    send(http, upload_id, 0, keys[:PIECE])
    assert begin(http, keys).json() | {"is_registered": False} == {
        "upload": upload_id,
        "size": len(keys),
        "offset": PIECE,
        "is_registered": False,
    }


def test_pieces_out_of_their_order_are_refused(http, owner):
    keys = other_keys(owner.keys, 2)
    upload_id = begin(http, keys).json()["upload"]
    assert_problem(send(http, upload_id, PIECE, keys[PIECE : 2 * PIECE]), 409, "upload-offset")  # too early
    send(http, upload_id, 0, keys[:PIECE])
    assert_problem(send(http, upload_id, 0, keys[:PIECE]), 409, "upload-offset")  # twice
    assert_problem(send(http, upload_id, PIECE - 1, keys[PIECE - 1 : 2 * PIECE]), 409, "upload-offset")  # overlapping
    assert_problem(send(http, upload_id, PIECE + 1, keys[PIECE + 1 : 2 * PIECE]), 409, "upload-offset")  # with a gap
    assert str(PIECE) in send(http, upload_id, 0, b"x").json()["detail"]
    assert_problem(http.post(f"/uploads/{upload_id}"), 409, "upload-incomplete")
    assert http.get(f"/uploads/{upload_id}").json()["offset"] == PIECE


def test_more_than_was_announced_or_a_piece_may_have_is_refused(http, owner):
    keys = other_keys(owner.keys, 3)
    upload_id = begin(http, keys).json()["upload"]
    answer = send(http, upload_id, 0, keys + b"\0")
    assert_problem(answer, 413, "payload-too-large")
    assert answer.headers["connection"] == "close"
    assert http.get(f"/uploads/{upload_id}").json()["offset"] == 0
    assert send(http, upload_id, 0, b"").json()["offset"] == 0
    uploads = Uploads(1 << 30, 10.0)
    uploads.open("id", "a", "tiny", "", 2 * CHUNK_BYTES)
    assert uploads.room("a", "id", 0) == CHUNK_BYTES
    with pytest.raises(PayloadTooLargeError):
        uploads.append("a", "id", 0, bytes(CHUNK_BYTES + 1))


@pytest.mark.parametrize(("difference", "code"), [(-1, "frame-length"), (1, "frame-length"), (10**9, "frame-length")])
def test_another_size_than_the_manifest_implies_is_refused_before_a_byte_comes(http, owner, difference, code):
    assert_problem(begin(http, owner.keys, size=len(owner.keys) + difference), 400, code)


@pytest.mark.parametrize(
    "wrong", [{"size": -1}, {"size": 1 << 60}, {"size": "x"}, {"sha256": "x"}, {"sha256": "A" * 64}]
)
def test_malformed_announcements_are_refused(http, owner, wrong):
    assert_problem(begin(http, owner.keys, **wrong), 422, "bad-request")


def test_what_was_not_announced_is_refused_and_forgotten(http, owner):
    keys = other_keys(owner.keys, 4)
    upload_id = begin(http, keys).json()["upload"]
    send(http, upload_id, 0, owner.keys)
    assert_problem(http.post(f"/uploads/{upload_id}"), 400, "upload-digest")
    assert_problem(http.post(f"/uploads/{upload_id}"), 404, "unknown-upload")


def test_keys_in_pieces_are_checked_as_those_in_one(http, owner):
    broken = bytearray(owner.keys)
    broken[:4] = b"XXXX"
    upload_id = begin(http, bytes(broken)).json()["upload"]
    send(http, upload_id, 0, bytes(broken))
    assert_problem(http.post(f"/uploads/{upload_id}"), 400, "bad-frame")
    assert_problem(http.get(f"/uploads/{upload_id}"), 404, "unknown-upload")


def test_unknown_uploads_and_models_are_unknown(http, owner):
    for answer in (
        http.get("/uploads/x"),
        send(http, "0" * 64, 0, b""),
        http.post(f"/uploads/{'0' * 64}"),
        http.delete("/uploads/x"),
    ):
        assert_problem(answer, 404, "unknown-upload")
    assert_problem(begin(http, owner.keys, "nothing"), 404, "unknown-model")


def test_an_upload_can_be_given_up(http, owner):
    upload_id = begin(http, other_keys(owner.keys, 5)).json()["upload"]
    assert http.delete(f"/uploads/{upload_id}").status_code == 204
    assert_problem(http.delete(f"/uploads/{upload_id}"), 404, "unknown-upload")


def test_there_are_only_so_many_uploads_at_once(http, owner):
    begun = [begin(http, other_keys(owner.keys, 10 + number)) for number in range(UPLOADS_OF_A_TENANT + 1)]
    assert [answer.status_code for answer in begun] == [201] * UPLOADS_OF_A_TENANT + [429]
    assert_problem(begun[-1], 429, "busy")
    http.delete(f"/uploads/{begun[0].json()['upload']}")
    assert begin(http, other_keys(owner.keys, 99)).status_code == 201


def test_an_upload_is_of_one_tenant_and_one_key_set(running, http, owner):
    keys = other_keys(owner.keys, 6)
    upload_id = begin(http, keys).json()["upload"]
    assert begin(http, keys, "twin", **of(TWIN)).json()["upload"] == upload_id  # which takes the same keys
    running.app.dependency_overrides[tenant_of] = lambda: "other"
    try:
        for answer in (
            http.get(f"/uploads/{upload_id}"),
            send(http, upload_id, 0, b"x"),
            http.post(f"/uploads/{upload_id}"),
        ):
            assert_problem(answer, 404, "unknown-upload")
        assert begin(http, keys).json()["upload"] != upload_id
        assert http.get("/keys").json() == {"keys": []}
        key_id = registered(http, owner.keys)
    finally:
        running.app.dependency_overrides.clear()
    answer = http.post("/infer", params=to(key_id), content=owner.inputs(IMAGE))
    assert_problem(answer, 404, "unknown-keys")
    assert_problem(http.delete(f"/keys/{key_id}"), 404, "unknown-keys")


def test_who_is_not_told_apart_learns_no_id(http, owner):
    key_id = registered(http, owner.keys)
    answer = http.get("/keys")
    assert any(entry["bytes"] == len(owner.keys) for entry in answer.json()["keys"])
    assert {entry["keys"] for entry in answer.json()["keys"]} == {None}
    assert key_id not in answer.text


def test_uploads_that_stand_still_are_over():
    now = [0.0]
    uploads = Uploads(1000, 60.0, lambda: now[0])
    for name in ("still", "goes on"):
        uploads.open(name, "a", "tiny", "", 100)
    now[0] = 50
    uploads.append("a", "goes on", 0, b"x")
    now[0] = 100
    with pytest.raises(UnknownUploadError):
        uploads.append("a", "still", 0, b"x")
    assert uploads.append("a", "goes on", 1, b"x").offset == 2
    assert len(uploads) == 1


def test_what_nobody_sends_any_more_gives_way_to_another_of_its_tenant():
    now = [0.0]
    uploads = Uploads(100 * UPLOADS_OF_A_TENANT, 3600.0, lambda: now[0], A_BYTE_A_MINUTE)
    for number in range(UPLOADS_OF_A_TENANT):
        uploads.open(f"{number}", "a", "tiny", "", 100)
        now[0] += 1
    uploads.append("a", "0", 0, b"x")
    with pytest.raises(BusyError):
        uploads.open("new", "a", "tiny", "", 100)
    now[0] = 1 + STILL_SECONDS + 0.5
    uploads.open("new", "a", "tiny", "", 100)
    with pytest.raises(UnknownUploadError):
        uploads.get("a", "1")
    assert [uploads.get("a", name).offset for name in ("0", "2", "new")] == [1, 0, 0]
    with pytest.raises(BusyError):  # the others are not still for long enough
        uploads.open("one more", "a", "tiny", "", 100)


def test_tenants_who_do_nothing_do_not_keep_all_places_from_another():
    now = [0.0]
    uploads = Uploads(1 << 30, 3600.0, lambda: now[0], A_BYTE_A_MINUTE)
    for number in range(UPLOADS_AT_ONCE):
        uploads.open(f"{number}", f"tenant {number}", "tiny", "", 100)
    now[0] = 1.0
    uploads.append("tenant 0", "0", 0, b"x")
    now[0] = ABANDONED_SECONDS
    with pytest.raises(BusyError):
        uploads.open("new", "another", "tiny", "", 100)
    now[0] += 0.5
    uploads.open("new", "another", "tiny", "", 100)
    with pytest.raises(UnknownUploadError):
        uploads.get("tenant 1", "1")
    uploads.open("own", "tenant 3", "tiny", "", 100)  # takes the place of its own, when there is one
    with pytest.raises(UnknownUploadError):
        uploads.get("tenant 3", "3")
    assert [uploads.get(f"tenant {number}", f"{number}").offset for number in (0, 2, 4)] == [1, 0, 0]


def test_tenants_who_keep_their_uploads_alive_do_not_keep_all_places_from_another():
    uploads = Uploads(1 << 30, 3600.0, lambda: 0.0)
    for number in range(UPLOADS_AT_ONCE):
        uploads.open(f"{number}", "ab"[number % 2], "tiny", "", 100)
    for number in range(UPLOADS_AT_ONCE // 3):
        uploads.open(f"new {number}", "c", "tiny", "", 100)
    with pytest.raises(BusyError):  # with this one it would have more than those it takes them from
        uploads.open("one more", "c", "tiny", "", 100)
    owners = {f"{number}": "ab"[number % 2] for number in range(UPLOADS_AT_ONCE)}
    owners |= {f"new {number}": "c" for number in range(UPLOADS_AT_ONCE // 3)}
    left = Counter(tenant for upload_id, tenant in owners.items() if is_there(uploads, tenant, upload_id))
    assert sorted(left.values()) == [5, 5, 6]


def is_there(uploads: Uploads, tenant: str, upload_id: str) -> bool:
    try:
        return bool(uploads.get(tenant, upload_id))
    except UnknownUploadError:
        return False


@pytest.mark.parametrize("pace", [0.0, 0.3, 0.9, 1.0, 5.0])
@pytest.mark.parametrize("pause", [1.0, 10.0, 40.0])
def test_who_sends_more_slowly_than_a_body_may_come_gives_way(pace, pause):
    """A byte now and then, or pieces of any size: at the pace of a body or more they keep their place."""
    now, size = [0.0], 1 << 30
    uploads = Uploads(size, 600.0, lambda: now[0], seconds_per_mib=10.0)
    uploads.open("slow", "a", "tiny", "", size)
    piece = bytes(max(1, min(CHUNK_BYTES, int(pace * pause * (1 << 20) / 10))))
    taken = None
    while taken is None and now[0] < 900:
        now[0] += pause
        uploads.append("a", "slow", uploads.get("a", "slow").offset, piece)
        with suppress(BusyError):
            taken = uploads.open("new", "b", "tiny", "", size)
    assert (taken is None) == (pace >= 1)
    assert pace or now[0] <= ABANDONED_SECONDS + 2 * pause


def test_who_sends_slowly_goes_on_where_nobody_needs_the_place():
    now = [0.0]
    uploads = Uploads(1000, 60.0, lambda: now[0])
    uploads.open("slow", "a", "tiny", "", 100)
    for _ in range(20):
        now[0] += 50
        uploads.append("a", "slow", uploads.get("a", "slow").offset, b"x")
    assert len(uploads) == 1


def test_nothing_is_no_sign_of_life():
    now = [0.0]
    uploads = Uploads(1000, 60.0, lambda: now[0])
    uploads.open("1", "a", "tiny", "", 100)
    now[0] = 50
    uploads.append("a", "1", 0, b"")
    now[0] = 70
    assert len(uploads) == 0


def test_who_has_a_single_upload_keeps_its_place():
    uploads = Uploads(1000, 3600.0, lambda: 0.0)
    uploads.open("all", "a", "tiny", "", 1000)
    with pytest.raises(BusyError):
        uploads.open("new", "b", "tiny", "", 100)
    assert uploads.get("a", "all").offset == 0


def test_nothing_gives_way_where_that_makes_no_room():
    uploads = Uploads(1000, 3600.0, lambda: 0.0)
    for size in (200, 800):
        uploads.open(f"{size}", "a", "tiny", "", size)
    with pytest.raises(BusyError):
        uploads.open("new", "b", "tiny", "", 900)
    assert len(uploads) == 2


def test_one_place_too_many_of_its_own_takes_none_of_another():
    now = [0.0]
    uploads = Uploads(1 << 30, 3600.0, lambda: now[0])
    uploads.open("of another", "b", "tiny", "", 100)
    now[0] = 2 * ABANDONED_SECONDS
    for number in range(UPLOADS_OF_A_TENANT):
        uploads.open(f"{number}", "a", "tiny", "", 100)
    with pytest.raises(BusyError):
        uploads.open("one more", "a", "tiny", "", 100)
    assert uploads.get("b", "of another").offset == 0


def test_what_could_not_be_kept_gives_way_at_once():
    uploads = Uploads(1 << 30, 3600.0, lambda: 0.0)
    for number in range(UPLOADS_OF_A_TENANT):
        uploads.open(f"{number}", "a", "tiny", "", 100)
    uploads.get("a", "3").is_refused = True
    uploads.open("new", "a", "tiny", "", 100)
    with pytest.raises(UnknownUploadError):
        uploads.get("a", "3")
    with pytest.raises(BusyError):
        uploads.open("one more", "a", "tiny", "", 100)


def test_the_announced_bytes_of_all_have_a_bound_and_nothing_is_taken_for_them():
    uploads = Uploads(1000, 60.0)
    assert uploads.open("1", "a", "tiny", "", 600).data == b""
    with pytest.raises(ServiceUnavailableError):
        uploads.open("2", "a", "tiny", "", 401)
    uploads.open("2", "b", "tiny", "", 400)


def test_what_has_come_is_given_out_only_when_it_is_all_of_it():
    uploads = Uploads(1000, 60.0)
    found = uploads.open("1", "a", "tiny", sha256(b"abc").hexdigest(), 3)
    with pytest.raises(UploadIncompleteError, match="0 of 3"):
        found.whole()
    uploads.append("a", "1", 0, b"ab")
    with pytest.raises(UploadOffsetError, match="begins at 2"):
        uploads.append("a", "1", 0, b"ab")
    uploads.append("a", "1", 2, b"c")
    assert found.whole() == b"abc"
    found.data[0] = 0
    with pytest.raises(UploadDigestError):
        found.whole()


# The client ------------------------------------------------------------------------------------


class Faulty(Recorded):
    """Loses requests before they arrive, and answers after they have been given."""

    def __init__(
        self, inner: httpx.BaseTransport, requests: tuple[int, ...] = (), answers: tuple[int, ...] = ()
    ) -> None:
        super().__init__(inner)
        self.lost_requests, self.lost_answers = requests, answers
        self.number = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.number += 1
        if self.number in self.lost_requests:
            raise httpx.ConnectError("lost")
        answer = super().handle_request(request)
        if self.number in self.lost_answers:
            raise httpx.ReadError("lost")
        return answer


def test_long_keys_go_in_pieces(running, in_pieces):
    transport = Recorded(running.transport)
    with Client(URL, model="tiny", transport=transport) as client:
        prediction = client.encrypt_and_predict(IMAGE)
        pieces = [len(request.content) for request in transport.requests if request.method == "PATCH"]
        assert sum(pieces) == client.key_bytes
    assert prediction.scores == pytest.approx(cleartext_scores(IMAGE), abs=0.05)
    assert max(pieces) == PIECE
    assert transport.count("/keys") == 0
    assert transport.count("/uploads") == 1


@pytest.mark.parametrize("number", range(2, 8))
@pytest.mark.parametrize("lost", ["requests", "answers"])
def test_whatever_is_lost_once_is_sent_again_and_nothing_else(running, in_pieces, lost, number):
    """Request 1 is for the manifest, 2 begins the upload, pieces follow."""
    transport = Faulty(running.transport, **{lost: (number,)})
    with Client(URL, model="tiny", transport=transport) as client:
        client.prepare()
        offsets = [int(request.url.params["offset"]) for request in transport.requests if request.method == "PATCH"]
        assert offsets == list(range(0, client.key_bytes, PIECE))
        assert client.encrypt_and_predict(IMAGE).label


def test_a_lost_answer_to_the_end_of_an_upload_does_no_harm(running, in_pieces):
    with Client(URL, model="tiny", transport=(counted := Faulty(running.transport))) as client:
        client.prepare()
        last = counted.number
    transport = Faulty(running.transport, answers=(last,))
    with Client(URL, model="tiny", transport=transport) as client:
        client.prepare()
        assert client.encrypt_and_predict(IMAGE).label
    assert sum(request.method == "PATCH" for request in transport.requests) == last - 3


def test_an_upload_that_the_service_has_forgotten_begins_again(running, in_pieces):
    class Forgets(Faulty):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if self.number == 4:
                running.service.uploads.purge({DEFAULT_TENANT.id})
            return super().handle_request(request)

    transport = Forgets(running.transport)
    with Client(URL, model="tiny", transport=transport) as client:
        assert client.encrypt_and_predict(IMAGE).label
    assert transport.count("/uploads") == 2


def test_a_service_that_takes_nothing_is_given_up(running, in_pieces):
    transport = Faulty(running.transport, requests=tuple(range(3, 100)))
    with Client(URL, model="tiny", transport=transport) as client, pytest.raises(ServiceUnavailableError):
        client.prepare()
    assert transport.number <= 1 + 2 * retries.TRIES


@pytest.mark.parametrize(
    "state",
    [
        {"upload": "../../keys", "offset": 0},
        {"upload": "u" * 64, "offset": -1},
        {"upload": "u" * 64, "offset": 1 << 60},
        {"upload": "u" * 64},
        [],
    ],
)
def test_a_malformed_state_is_refused(in_pieces, state):
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/manifest"):
            return httpx.Response(200, content=MODEL.manifest.to_bytes())
        return httpx.Response(201, json=state)

    with (
        Client(URL, model="tiny", transport=httpx.MockTransport(answer)) as client,
        pytest.raises(ServiceError, match="malformed") as caught,
    ):
        client.prepare()
    assert type(caught.value) is ServiceError


@pytest.mark.parametrize("kind", ["creeps", "puts off", "never finishes"])
def test_a_service_that_keeps_a_client_busy_is_given_up(in_pieces, kind):
    errors = {"creeps": UploadOffsetError, "puts off": BusyError, "never finishes": ServiceUnavailableError}
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.method)
        if request.url.path.endswith("/manifest"):
            return httpx.Response(200, content=MODEL.manifest.to_bytes())
        if kind == "puts off":
            return httpx.Response(429, headers={"Retry-After": "99999"}, json={"code": "busy"})
        if kind == "never finishes":
            if not request.url.path.endswith("/uploads"):
                return httpx.Response(503, json={"code": "service-unavailable"})
            return httpx.Response(201, json={"upload": "u" * 64, "offset": int(request.url.params["size"])})
        return httpx.Response(201, json={"upload": "u" * 64, "offset": len(asked)})

    with (
        Client(URL, model="tiny", transport=httpx.MockTransport(answer), timeout=60) as client,
        pytest.raises(errors[kind]),
    ):
        client.prepare()
    assert len(asked) <= 1 + 2 * retries.TRIES


def test_a_service_that_never_gets_further_is_given_up(in_pieces):
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.method)
        if request.url.path.endswith("/manifest"):
            return httpx.Response(200, content=MODEL.manifest.to_bytes())
        return httpx.Response(201, json={"upload": "u" * 64, "offset": 0})

    with (
        Client(URL, model="tiny", transport=httpx.MockTransport(answer)) as client,
        pytest.raises(UploadOffsetError),
    ):
        client.prepare()
    assert len(asked) <= 1 + 2 * retries.TRIES


def test_the_asynchronous_twin_gets_through_as_well(running, in_pieces):
    class FaultyAsync(httpx.AsyncBaseTransport):
        def __init__(self) -> None:
            self.inner = httpx.ASGITransport(running.app)
            self.paths: list[str] = []

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            self.paths.append(request.url.path)
            if len(self.paths) in (3, 6):
                raise httpx.ReadError("lost")
            return await self.inner.handle_async_request(request)

    transport = FaultyAsync()

    async def use() -> str:
        async with AsyncClient(URL, model="tiny", transport=transport) as client:
            first, _ = await asyncio.gather(client.encrypt_and_predict(IMAGE), client.encrypt_and_predict(IMAGE))
            return first.label

    assert running.portal.call(use)
    assert sum(path.endswith("/uploads") for path in transport.paths) == 3
