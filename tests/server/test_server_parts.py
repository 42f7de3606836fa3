"""Parts of the service, each by itself: settings, models, limits, logs, bodies, connections."""

import asyncio
import json
import logging
import os
import socket
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from starlette.requests import ClientDisconnect, Request
from tiny_model import tiny_bundle

from heinfer.errors import (
    BackendError,
    BundleError,
    BusyError,
    HeinferError,
    PayloadTooLargeError,
    SettingError,
)
from heinfer.formats import bundle as bundles
from heinfer.formats.manifest import MAX_MANIFEST_BYTES
from heinfer_client import transfer, trust
from heinfer_server import Settings, create_app, service
from heinfer_server.__main__ import main
from heinfer_server.admission.concurrency import ConcurrencyLimit, WaitingLimit
from heinfer_server.errors import SlowBodyError
from heinfer_server.evaluation import jobs
from heinfer_server.evaluation.disconnect import DisconnectedError, unless
from heinfer_server.evaluation.fair_queue import FairQueue, Turn
from heinfer_server.evaluation.loaded import MOST_LOADED_KEYS
from heinfer_server.keys import uploads
from heinfer_server.main import run
from heinfer_server.models import load_models
from heinfer_server.telemetry import logs
from heinfer_server.telemetry.logs import JsonFormatter, log, request_id
from heinfer_server.telemetry.metrics import LEAST_SECONDS
from heinfer_server.web import connections, descriptors, metrics_port
from heinfer_server.web.body import read_body
from heinfer_server.web.problems import problem_of

# Settings and models ---------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def logging_as_before():
    """Services that begin to run in this process send its log to standard error."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    for handler in [handler for handler in root.handlers if handler not in before]:
        root.removeHandler(handler)
        handler.close()
    root.handlers[:] = before
    root.setLevel(level)


def test_settings_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("HEINFER_SERVER_BUNDLES", os.pathsep.join(["a.heinfer", "b.heinfer"]))
    monkeypatch.setenv("HEINFER_SERVER_KEY_MEMORY", "512MiB")
    monkeypatch.setenv("HEINFER_SERVER_PORT", "0")
    monkeypatch.setenv("HEINFER_SERVER_NO_AUTH", "1")
    settings = Settings()
    assert [path.name for path in settings.bundles] == ["a.heinfer", "b.heinfer"]
    assert (settings.key_memory, settings.port) == (512 << 20, 0)
    assert settings.workers >= 1


@pytest.mark.parametrize(
    "wrong", [{"port": 70_000}, {"workers": 0}, {"bundles": ()}, {"evaluation_timeout": 0}, {"colour": "red"}]
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        Settings(**{"bundles": ("a",), "no_auth": True, **wrong})


@pytest.mark.parametrize(("name", "meant"), [("KEY_FODLER", "KEY_FOLDER"), ("key_qota", "KEY_QUOTA")])
def test_a_misspelt_variable_is_refused_with_what_may_be_meant(name, meant, monkeypatch, capsys):
    monkeypatch.setenv(f"HEINFER_SERVER_{name}", "1")
    assert main() == 2
    assert f"HEINFER_SERVER_{name} is no setting: did you mean HEINFER_SERVER_{meant}?" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["INTERNAL_SERVICE_HOST", "INTERNAL_PORT_9464_TCP_ADDR", "COLOUR"])
def test_a_variable_that_somebody_else_has_set_is_ignored(name, monkeypatch):
    monkeypatch.setenv(f"HEINFER_SERVER_{name}", "10.0.0.1")  # as Kubernetes does for each of its services
    assert Settings(bundles=("a",), no_auth=True).port == 8000


def test_what_is_set_twice_over_is_said_to_contradict():
    with pytest.raises(ValidationError, match=r"contradict .* HEINFER_SERVER_NO_AUTH"):
        Settings(bundles=("a",), no_auth=True, tenants="a")


def test_a_folder_for_constants_must_be_writable(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)  # root may write everywhere
    with pytest.raises(ValidationError, match="cannot be written"):
        Settings(bundles=("a",), no_auth=True, constants_folder=tmp_path)


def test_an_address_that_is_taken_is_refused_before_workers_load_models(tmp_path, monkeypatch):
    monkeypatch.setattr("heinfer_server.main.create_app", None)  # it is not called
    bundles.save(tiny_bundle(), tmp_path / "a")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = Settings(bundles=(tmp_path / "a",), no_auth=True, port=taken.getsockname()[1])
        with pytest.raises(SettingError, match=r"port \d+ \(Address already in use\): set HEINFER_SERVER_PORT"):
            run(settings)
    for host in ("nowhere.invalid", "x" * 64):
        with pytest.raises(SettingError, match=rf"cannot listen on {host}, .* or HEINFER_SERVER_HOST"):
            run(settings.model_copy(update={"host": host}))


def test_the_command_names_the_setting_that_is_wrong(monkeypatch, capsys):
    monkeypatch.setenv("HEINFER_SERVER_BUNDLES", "missing.heinfer")
    assert main() == 2
    assert "HEINFER_SERVER_NO_AUTH" in capsys.readouterr().err
    monkeypatch.setenv("HEINFER_SERVER_NO_AUTH", "1")
    assert main() == 2
    assert "missing.heinfer" in capsys.readouterr().err
    monkeypatch.setenv("HEINFER_SERVER_WORKERS", "many")
    assert main() == 2
    assert "HEINFER_SERVER_WORKERS" in capsys.readouterr().err


def test_bundles_must_be_there_whole_and_of_different_manifests(tmp_path):
    path, twin, broken = (tmp_path / name for name in ("a", "b", "c"))
    bundles.save(tiny_bundle(), path)
    bundles.save(tiny_bundle(), twin)
    broken.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SettingError, match="there is no bundle"):
        load_models([tmp_path / "missing"])
    with pytest.raises(SettingError, match="two bundles have the same manifest, of tiny 1: serve one"):
        load_models([path, twin])
    with pytest.raises(BundleError):
        load_models([broken])


def test_memory_for_keys_must_hold_one_clients(tmp_path):
    path = tmp_path / "a"
    bundles.save(tiny_bundle(), path)
    for name, others in (
        ("KEY_MEMORY", {"no_auth": True}),
        ("KEY_QUOTA", {"no_auth": True}),
        ("KEY_DISK", {"no_auth": True, "key_folder": tmp_path / "keys"}),
    ):
        settings = Settings(bundles=(path,), **others, **{name.lower(): 100_000})
        with pytest.raises(SettingError, match=f"is 100000: raise HEINFER_SERVER_{name}"):
            create_app(settings, load_models(settings.bundles))


# Bodies ----------------------------------------------------------------------------------------


def request_of(pieces: list[bytes | float | None], content_length: str | None = None) -> Request:
    """A request whose body arrives in these pieces; a number is a pause in seconds, None a disconnection."""
    rest = list(pieces)

    async def receive() -> dict[str, object]:
        piece = rest.pop(0) if rest else b""
        if piece is None:
            return {"type": "http.disconnect"}
        if isinstance(piece, float):
            await asyncio.sleep(piece)
            piece = b""
        return {"type": "http.request", "body": piece, "more_body": bool(rest)}

    headers = [(b"content-length", content_length.encode())] if content_length is not None else []
    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


def read(request: Request, length: int = 10, seconds: float = 5.0) -> bytes:
    return asyncio.run(read_body(request, length, seconds))


def test_a_body_is_read_whole():
    assert read(request_of([b"01234", b"56789"], "10")) == b"0123456789"
    assert read(request_of([b"0123"])) == b"0123"


def test_a_body_is_in_memory_once():
    mib = bytes(1 << 20)
    length = 16 * len(mib)

    async def peak() -> int:
        assert len(await read_body(request_of([mib] * 16), length, 5.0)) == length
        return tracemalloc.get_traced_memory()[1]

    tracemalloc.start()
    try:
        assert asyncio.run(peak()) < 1.5 * length
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("declared", ["11", "99999999999999999999999", "ten", "-1", "1_0"])
def test_a_declared_length_that_is_too_large_is_refused_before_a_byte_is_read(declared):
    with pytest.raises(PayloadTooLargeError):
        read(request_of([], declared))


def test_a_chunked_body_is_refused_at_the_first_byte_too_much():
    with pytest.raises(PayloadTooLargeError):
        read(request_of([b"0123"] * 1000))


def test_a_slow_body_is_given_up():
    with pytest.raises(SlowBodyError, match=r"within 0\.05 seconds"):
        read(request_of([b"0", 10.0]), seconds=0.05)


def test_a_long_body_that_stops_is_given_up_as_soon_as_a_short_one():
    mib = bytes(1 << 20)
    started = time.monotonic()
    with pytest.raises(SlowBodyError):
        read(request_of([mib, mib, 10.0]), length=100 << 20, seconds=0.2)
    assert time.monotonic() - started < 2.0
    assert len(read(request_of([mib, 0.2, mib, 0.2, mib]), length=100 << 20, seconds=0.3)) == 3 << 20


def test_a_client_that_goes_away_is_no_error_of_ours():
    with pytest.raises(ClientDisconnect):
        read(request_of([b"0", None]))


def test_a_gate_is_full_and_then_is_not():
    limit = ConcurrencyLimit(2, 2)
    with limit.entered("a"), limit.entered("b"), pytest.raises(BusyError, match="later"), limit.entered("c"):
        pass
    with limit.entered("c"):
        assert limit.inside == 1
    assert not limit._holders


def test_a_gate_lets_nobody_have_all_of_it():
    limit = ConcurrencyLimit(3, 2)
    with limit.entered("a"), limit.entered("a"):
        with pytest.raises(BusyError, match="2 of your requests"), limit.entered("a"):
            pass
        with limit.entered("b"):
            assert limit.inside == 3


def test_who_waits_for_a_place_gets_it_holder_after_holder():
    async def use() -> list[str]:
        limit, order = WaitingLimit(1, 1, 60.0), []

        async def enter(holder: str) -> None:
            async with limit.entered_in_turn(holder):
                order.append(holder)
                await asyncio.sleep(0)

        await asyncio.gather(*(enter(holder) for holder in "aaaabbca"))
        assert not limit._holders
        assert not limit._waiting
        return order

    assert "".join(asyncio.run(use())) == "aabcabaa"


def test_who_has_its_share_waits_and_others_do_not():
    async def use() -> None:
        limit = WaitingLimit(3, 2, 0.05)
        async with limit.entered_in_turn("a"), limit.entered_in_turn("a"):
            waiting = asyncio.create_task(limit.entered_in_turn("a").__aenter__())
            await asyncio.sleep(0)
            assert not waiting.done()
            async with limit.entered_in_turn("b"):
                assert limit.inside == 3
            with pytest.raises(BusyError, match="2 of your requests"):
                await waiting
        assert limit.inside == 0

    asyncio.run(use())


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["enter", "end", "leave"])), max_size=60))
@settings(deadline=None, max_examples=100)
def test_no_place_is_lost_whoever_leaves_and_when(events):
    async def use() -> None:
        limit = WaitingLimit(3, 2, 60.0)
        entering: list[tuple[asyncio.Task[None], asyncio.Event]] = []

        async def enter(holder: str, end: asyncio.Event) -> None:
            async with limit.entered_in_turn(holder):
                assert limit._holders[holder] <= 2
                assert limit.inside <= 3
                await end.wait()

        for holder, event in events:
            if event == "enter":
                end = asyncio.Event()
                entering.append((asyncio.create_task(enter(holder, end)), end))
            elif entering and event == "leave":
                entering[len(entering) // 2][0].cancel()
            elif entering:
                entering[0][1].set()
                entering.pop(0)
            if event != "end":
                await asyncio.sleep(0)
        for task, _ in entering:
            task.cancel()
        for _ in range(len(events) + 5):
            await asyncio.sleep(0)
        assert not limit._holders
        assert not limit._waiting

    asyncio.run(use())


def test_turns_that_cost_the_same_go_from_holder_to_holder():
    async def use() -> list[str]:
        turns, order = FairQueue(1), []

        async def take(holder: str) -> None:
            await turns.take(holder)
            order.append(holder)
            await asyncio.sleep(0)
            turns.settle(holder)
            turns.give_back()

        await asyncio.gather(*(take(holder) for holder in "aaaabbca"))
        assert (turns.free, turns.waiting) == (1, 0)
        return order

    assert "".join(asyncio.run(use())) == "aabcabaa"


def test_as_many_turns_are_taken_at_once_as_there_are():
    async def use() -> None:
        turns = FairQueue(2)
        waiting = [asyncio.create_task(turns.take(holder)) for holder in "aaab"]
        await asyncio.sleep(0)
        assert [turn.done() for turn in waiting] == [True, True, False, False]
        turns.give_back()
        turns.give_back()
        await asyncio.gather(*waiting)
        assert (turns.free, turns.waiting) == (0, 0)

    asyncio.run(use())


def test_a_turn_that_is_not_waited_for_any_more_is_the_next_ones():
    async def use() -> None:
        turns = FairQueue(1)
        await turns.take("a")
        leaves, late, stays = (asyncio.create_task(turns.take(holder)) for holder in "aab")
        await asyncio.sleep(0)
        leaves.cancel()
        await asyncio.gather(leaves, return_exceptions=True)
        assert turns.waiting == 2
        turns.give_back()
        late.cancel()  # in the moment of its turn
        await asyncio.gather(late, return_exceptions=True)
        assert late.cancelled()
        await stays
        turns.give_back()
        assert (turns.free, turns.waiting) == (1, 0)

    asyncio.run(use())


# Clients who go away ---------------------------------------------------------------------------


def test_a_turn_that_comes_as_the_client_goes_is_the_next_ones():
    async def use() -> None:
        turns = FairQueue(1)
        turn = Turn(turns, "a", 1.0)
        gone = asyncio.get_running_loop().create_future()
        await unless(gone, turn.take(), give_up=turn.give_up)
        waiting = asyncio.create_task(unless(gone, turn.take(), give_up=turn.give_up))
        while not turns.waiting:
            await asyncio.sleep(0)
        turns.give_back()
        gone.set_result(None)
        with pytest.raises(DisconnectedError):
            await waiting
        with pytest.raises(DisconnectedError):  # gone before it had to wait
            await unless(gone, turn.take(), give_up=turn.give_up)
        while not turns.free:
            await asyncio.sleep(0)

    asyncio.run(use())


def test_a_wait_that_is_cancelled_takes_no_turn():
    async def use() -> None:
        turns = FairQueue(0)
        gone = asyncio.get_running_loop().create_future()
        waiting = asyncio.create_task(unless(gone, turns.take("a"), give_up=turns.give_back))
        while not turns.waiting:
            await asyncio.sleep(0)
        waiting.cancel()
        turns.give_back()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        while not turns.free:
            await asyncio.sleep(0)

    asyncio.run(use())


# Bounds ----------------------------------------------------------------------------------------


def test_the_bounds_are_those_that_are_documented():
    text = (Path(__file__).parents[2] / "SECURITY.md").read_text()
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    for row in (
        f"less {descriptors.SERVICE_FILES + descriptors.METRICS_FILES + 2 * descriptors.MOST_BACKLOG} files",
        f"and {descriptors.FILES_PER_WORKER} for each worker",
        f"API key may cause {logs.OUTSIDE_LINES} at once",
        f"connections to the metrics port | {metrics_port.MOST_CONNECTIONS},",
        f"at most {1 / LEAST_SECONDS:g} times a second",
        f"query and headers | {connections.MAX_HEAD_BYTES >> 10} KiB, and {connections.HEAD_SECONDS:g} s",
        f"`BODY_SECONDS_PER_MIB`, {defaults['body_seconds_per_mib']:g} s",
        f"{connections.ANSWER_SECONDS_PER_MIB:g} s for each started MiB",
        f"{service.REGISTRATIONS_AT_ONCE} at once, pieces",
        f"`KEY_MEMORY`, {defaults['key_memory'] >> 30} GiB",
        f"`KEY_DISK`, {defaults['key_disk'] >> 30} GiB",
        f"`KEY_SECONDS`, {defaults['key_seconds'] / 86400:g} days",
        f"{uploads.UPLOADS_AT_ONCE} at once, {uploads.UPLOADS_OF_A_TENANT} of a tenant",
        f"at most {uploads.CHUNK_BYTES >> 20} MiB",
        f"`UPLOAD_SECONDS`, {defaults['upload_seconds']:g} s",
        f"`LOADED_KEY_MEMORY`, {defaults['loaded_key_memory'] >> 30} GiB, of keys expanded for use, {MOST_LOADED_KEYS}",
        f"{service.EVALUATIONS_PER_WORKER} for each worker",
        f"{service.EVALUATIONS_PER_WORKER_AND_TENANT} of them of one tenant",
        f"`TENANT_REQUESTS`, {defaults['tenant_requests']}, and `TENANT_BYTES`, {defaults['tenant_bytes'] >> 30} GiB",
        f"then {jobs.JOBS_OF_A_TENANT} of a tenant, {jobs.JOBS_KEPT} in all",
        f"`JOB_SECONDS`, {defaults['job_seconds']:g} s",
        f"`EVALUATION_TIMEOUT`, {defaults['evaluation_timeout']:g} s",
        f"`MODEL_MEMORY`, {defaults['model_memory'] >> 30} GiB",
        f"at most {bundles.MAX_FILE_BYTES >> 20} MiB, inflated {bundles.MAX_INFLATED_BYTES >> 20} MiB",
        f"{MAX_MANIFEST_BYTES >> 20} MiB of manifest, {trust.MAX_KEY_BYTES >> 30} GiB of evaluation keys to send "
        f"({trust.MAX_MADE_BYTES >> 30} GiB before",
        f"{trust.MAX_INPUT_BYTES >> 30} GiB of input",
        f"`timeout`, {transfer.DEADLINE:g} s",
    ):
        assert row in text


# Problems and logs -----------------------------------------------------------------------------


def test_a_full_service_says_when_to_come_back():
    answer = problem_of(BusyError("full"), "1")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    answer = problem_of(BusyError("full", retry_after=7), "1")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (BackendError("SEAL failed to add"), 422, "backend-error"),
        (SettingError("of the operator"), 500, "internal-error"),
        (HeinferError("unforeseen"), 500, "internal-error"),
    ],
)
def test_errors_have_a_status_and_what_is_not_the_clients_stays_here(error, status, code):
    answer = problem_of(error, "1")
    body = json.loads(answer.body)
    assert (answer.status_code, body["code"]) == (status, code)
    assert (str(error) in body["detail"]) == (status != 500)


def test_a_line_of_the_log_is_json_with_the_request(caplog):
    token = request_id.set("abc")
    with caplog.at_level(logging.INFO):
        log(logging.getLogger("heinfer_server.test"), logging.INFO, "tried", seconds=1.5)
        line = json.loads(JsonFormatter().format(caplog.records[0]))
    request_id.reset(token)
    assert line["time"].endswith("+00:00")
    assert {name: line[name] for name in ("level", "event", "request_id", "seconds")} == {
        "level": "info",
        "event": "tried",
        "request_id": "abc",
        "seconds": 1.5,
    }
