"""The log: how many lines there may be, who waits for whoever reads it, and whom it names."""

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heinfer_server.settings import Settings
from heinfer_server.telemetry import logs, repetitions
from heinfer_server.telemetry.logs import (
    OUTSIDE_LINES,
    BoundedHandler,
    JsonFormatter,
    log,
    peer,
    request_id,
    tenant_name,
)
from heinfer_server.telemetry.repetitions import Kind, Repetitions, bare
from heinfer_server.telemetry.writing import MOST_WAITING
from heinfer_server.web.peers import MOST_HOPS, peer_of

OURS = logging.getLogger("heinfer_server.test")
OTHERS = logging.getLogger("asyncio.test")
PIPE_BYTES = 1 << 16

# How many lines --------------------------------------------------------------------------------


@given(
    st.integers(1, 30),
    st.floats(1, 600),
    st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 20)), min_size=1, max_size=200),
)
def test_of_each_kind_no_more_lines_pass_than_its_budget_and_the_rest_is_counted(at_once, a_minute, came):
    flood, now = Repetitions(at_once, a_minute), 0.0
    passed, seen, left_out = dict.fromkeys("abc", 0), dict.fromkeys("abc", 0), dict.fromkeys("abc", 0)
    for event, later in came:
        now += later
        seen[event] += 1
        passed[event] += flood.passes(Kind("info", "", event), now)
        assert passed[event] <= at_once + a_minute / 60 * now + 1e-6
        assert seen[event] > at_once or passed[event] == seen[event]
    for repeated in flood.take():
        left_out[repeated.kind.event] += repeated.lines
        assert 0 <= repeated.since <= now
    assert {event: passed[event] + left_out[event] for event in "abc"} == seen
    assert not list(flood.take())


def test_kinds_beyond_the_bound_share_what_one_may_have(monkeypatch):
    monkeypatch.setattr(repetitions, "MOST_KINDS", 50)
    flood = Repetitions(5, 60)
    passed = sum(flood.passes(Kind("info", "", f"event {number}"), 0.0) for number in range(10_000))
    assert passed == 50 + 5
    assert len(flood._budgets) == 51
    assert flood.passes(Kind("info", "", "event 1"), 0.0)  # who has a budget keeps it
    assert flood.passes(Kind("info", "", "later"), 1000.0)  # and those who have not been heard of for long give way
    assert len(flood._budgets) < 50


@given(st.text(), st.integers())
def test_messages_of_others_are_of_one_kind_whatever_they_are_about(text, number):
    message = "Exception in callback <Task at 0x{:x}> fd={}\n{}"
    assert bare(message.format(abs(number), number, text)) == bare(message.format(1, -2, "other"))
    assert len(bare(text * 100)) <= 80
    assert bare(OSError(text)) == "OSError"


# The handler -----------------------------------------------------------------------------------


@contextmanager
def handled(tenant_lines: float = 100.0) -> Iterator[tuple[BoundedHandler, int]]:
    """A handler of two loggers, and the end of the pipe that it writes to."""
    reading, writing = os.pipe()
    handler = BoundedHandler(writing, tenant_lines)
    for logger in (OURS, OTHERS):
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    try:
        yield handler, reading
    finally:
        for logger in (OURS, OTHERS):
            logger.removeHandler(handler)
            logger.propagate = True
        os.set_blocking(reading, False)
        while _read(reading):
            pass
        handler.close()
        os.close(reading)


def _read(reading: int) -> bytes:
    try:
        return os.read(reading, 1 << 20)
    except BlockingIOError:
        return b""


def lines_of(handler: BoundedHandler, reading: int) -> list[dict[str, object]]:
    handler.close()
    return [json.loads(line) for line in _read(reading).splitlines()]


@contextmanager
def request(address: str | None = "192.0.2.1", tenant: str = "") -> Iterator[None]:
    """What is logged while a request is answered."""
    tokens = request_id.set("1"), peer.set(address), tenant_name.set(tenant)
    try:
        yield
    finally:
        for variable, token in zip((request_id, peer, tenant_name), tokens, strict=True):
            variable.reset(token)


def test_a_flood_from_outside_takes_nothing_from_tenants_and_failures():
    with handled() as (handler, reading):
        for _ in range(5_000):
            with request():
                log(OURS, logging.INFO, "request", status=401, code="unauthorized", route=None)
            log(OURS, logging.INFO, "no request", status=400, code="malformed-request", peer="192.0.2.1")
            OTHERS.error("socket.accept() out of system resource\nsocket: <socket at 0x7f>")
        with request(tenant="alice"):
            for _ in range(100):
                log(OURS, logging.INFO, "request", status=200, route="/infer")
            log(OURS, logging.ERROR, "worker failed", reason="exit code -9")
        with request():
            log(OURS, logging.INFO, "request", status=500, code="internal-error", route=None)
        log(OURS, logging.ERROR, "keys not tidied")
        lines = lines_of(handler, reading)
    of = {event: [line for line in lines if line["event"] == event] for event in {line["event"] for line in lines}}
    kinds = [line for line in of["request"] if line.get("tenant") is None and line["status"] == 401]
    assert OUTSIDE_LINES <= len(kinds) <= OUTSIDE_LINES + 10
    assert len(of["no request"]) <= OUTSIDE_LINES + 10
    assert sum(line.get("tenant") == "alice" for line in of["request"]) == 100
    assert len(of["worker failed"]) == len(of["keys not tidied"]) == 1
    assert [line["status"] for line in of["request"] if line.get("code") == "internal-error"] == [500]
    left_out = {line["what"]: line["lines"] for line in of["repeated"]}
    assert left_out["request"] == 5_000 - len(kinds)
    assert left_out["no request"] == 5_000 - len(of["no request"])
    assert left_out["socket.accept() out of system resource"] > 4_900
    (summary,) = [line for line in of["repeated"] if line["what"] == "request"]
    assert (summary["code"], summary["status"], summary["level"]) == ("unauthorized", 401, "info")
    assert summary["since"] <= summary["time"]


def test_a_tenant_has_a_bound_of_its_own():
    with handled(tenant_lines=50) as (handler, reading):
        for tenant in ("alice", "bob"):
            with request(tenant=tenant):
                for _ in range(1_000):
                    log(OURS, logging.INFO, "request", status=200, route="/infer")
        lines = lines_of(handler, reading)
    for tenant in ("alice", "bob"):
        mine = [line for line in lines if line.get("tenant") == tenant]
        assert 100 <= sum(line["event"] == "request" for line in mine) <= 110
        assert sum(line.get("lines", 1) for line in mine) == 1_000


def test_what_was_left_out_is_told_when_nothing_more_comes(monkeypatch):
    monkeypatch.setattr(logs, "_SUMMARY_SECONDS", 0.2)
    with handled() as (_, reading):
        with request():
            for _ in range(1_000):
                log(OURS, logging.INFO, "request", status=401, route=None)
        text = b""
        while b'"repeated"' not in text:  # or the test runs out of time
            text += os.read(reading, 1 << 16)
        assert sum(json.loads(line).get("lines", 1) for line in text.splitlines()) == 1_000


def test_every_line_of_a_request_has_its_peer():
    with handled() as (handler, reading):
        for address in ("192.0.2.7", None):
            with request(address):
                log(OURS, logging.INFO, "request")
                OTHERS.warning("of another")
        log(OURS, logging.INFO, "of the service")
        lines = lines_of(handler, reading)
    assert [line.get("peer", "-") for line in lines] == ["192.0.2.7", "192.0.2.7", None, None, "-"]


def test_nobody_who_logs_waits_for_who_reads():
    with handled(tenant_lines=1e9) as (_, reading):
        started = time.monotonic()
        with request(tenant="alice"):
            for _ in range(20_000):
                log(OURS, logging.INFO, "request", reason="x" * 100)
        assert time.monotonic() - started < 20
        text, ends = b"", time.monotonic() + 20
        while b'"lines lost"' not in text and time.monotonic() < ends:
            text += os.read(reading, 1 << 20)
            log(OURS, logging.INFO, "it goes on")
        lost = [json.loads(line) for line in text.splitlines() if b'"lines lost"' in line]
        assert 0 < lost[0]["lines"] < 20_000
        assert text.index(b'"lines lost"') <= MOST_WAITING + 2 * PIPE_BYTES  # that waited, beside those in the pipe


def test_a_log_that_cannot_be_written_ends_nothing():
    reading, writing = os.pipe()
    handler = BoundedHandler(writing, 1.0)
    os.close(reading)
    for _ in range(3):
        handler.handle(logging.LogRecord("heinfer_server.x", logging.INFO, "", 0, "event", (), None))
        handler.flush()
    assert handler._writer.take_lost() > 0
    handler.close()


def test_a_line_that_cannot_be_formatted_is_there_all_the_same():
    with handled() as (handler, reading):
        OTHERS.error("%d of them", "no number")
        log(OURS, logging.ERROR, "event", fact=object())
        lines = lines_of(handler, reading)
    assert [(line["level"], line["event"]) for line in lines] == [("error", "%d of them"), ("error", "event")]


# Whom it names ---------------------------------------------------------------------------------

TRUSTED = [ip_network("127.0.0.1/32"), ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


def peer_by(client: str | None, *headers: str, trusted: object = TRUSTED) -> str | None:
    scope = {
        "client": None if client is None else (client, 1234),
        "headers": [(b"x-forwarded-for", header.encode("latin-1")) for header in headers],
    }
    return peer_of(scope, trusted)


@pytest.mark.parametrize(
    ("client", "headers", "found"),
    [
        (None, ["192.0.2.1"], None),
        ("127.0.0.1", [], "127.0.0.1"),
        ("198.51.100.9", ["192.0.2.1"], "198.51.100.9"),  # it is no proxy of ours
        ("127.0.0.1", ["192.0.2.1"], "192.0.2.1"),
        ("127.0.0.1", ["203.0.113.5, 192.0.2.1"], "192.0.2.1"),  # the first one is of the sender's making
        ("127.0.0.1", ["203.0.113.5", "192.0.2.1"], "192.0.2.1"),
        ("127.0.0.1", ["192.0.2.1, 10.1.2.3"], "192.0.2.1"),
        ("127.0.0.1", ["10.9.9.9, 10.1.2.3"], "10.9.9.9"),
        ("127.0.0.1", ["evil, 192.0.2.1"], "192.0.2.1"),
        ("127.0.0.1", ["192.0.2.1, evil"], "127.0.0.1"),
        ("127.0.0.1", ["192.0.2.1, evil, 10.1.2.3"], "127.0.0.1"),
        ("127.0.0.1", [""], "127.0.0.1"),
        ("127.0.0.1", ["192.0.2.1,"], "127.0.0.1"),
        ("127.0.0.1", ["192.0.2.1:4711"], "192.0.2.1"),
        ("127.0.0.1", ["192.0.2.1:x"], "127.0.0.1"),
        ("127.0.0.1", ["2001:db8::1"], "2001:db8::1"),
        ("127.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("127.0.0.1", ["[2001:db8::1]"], "2001:db8::1"),
        ("127.0.0.1", ["[2001:db8::1"], "127.0.0.1"),
        ("127.0.0.1", ["[2001:db8::1]x"], "127.0.0.1"),
        ("127.0.0.1", ["fe80::1%<script>"], "127.0.0.1"),
        ("127.0.0.1", ["::ffff:192.0.2.1"], "192.0.2.1"),
        ("::ffff:10.0.0.1", ["192.0.2.1"], "192.0.2.1"),
        ("fd00::1", ["2001:db8::1"], "2001:db8::1"),
        ("fe80::1%eth0", ["2001:db8::1"], "fe80::1%eth0"),
        ("no address", ["192.0.2.1"], "no address"),
        ("127.0.0.1", ["10.0.0.1," * 5000 + "10.0.0.2"], "10.0.0.1"),
    ],
)
def test_a_forwarded_address_counts_only_from_a_trusted_proxy(client, headers, found):
    assert peer_by(client, *headers) == found
    assert peer_by(client, *headers, trusted=()) == (None if client is None else peer_by(client, trusted=()))


@given(st.text(st.characters(max_codepoint=255), max_size=200), st.ip_addresses())
def test_what_a_sender_adds_before_a_trusted_proxys_word_changes_nothing(text, address):
    said = peer_by("127.0.0.1", f"{text}, {address}")
    if not any(address in network for network in TRUSTED):
        assert said == peer_by("127.0.0.1", str(address))
    assert peer_by("198.51.100.9", text) == "198.51.100.9"


@given(st.lists(st.sampled_from(["10.1.1.1", "192.0.2.1", "x", " 10.0.0.7 ", ""]), max_size=2 * MOST_HOPS))
def test_an_address_in_the_log_is_one(hops):
    assert peer_by("127.0.0.1", ",".join(hops)) in {"127.0.0.1", "10.1.1.1", "192.0.2.1", "10.0.0.7"}


def test_networks_of_proxies_are_settings(tmp_path):
    def networks(text: object) -> list[str]:
        return list(map(str, Settings(bundles=(tmp_path,), no_auth=True, trusted_proxies=text).trusted_proxies))

    assert networks("") == networks(()) == []
    assert networks("127.0.0.1, 10.0.0.0/8,fd00::/8") == ["127.0.0.1/32", "10.0.0.0/8", "fd00::/8"]
    for wrong in ("10.0.0.1/8", "proxy", "10.0.0.0/33"):
        with pytest.raises(ValueError, match="trusted_proxies"):
            networks(wrong)


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
