"""Stored keys and clocks that are wrong: what steps, what was ahead at the start, and what an operator confirms."""

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from heinfer_cli.main import app
from heinfer_server.errors import StorageError
from heinfer_server.keys.clock import Clocks, KeyClock, Seen
from heinfer_server.keys.disk_storage import DiskStorage
from heinfer_server.keys.memory_storage import MemoryStorage
from heinfer_server.keys.store import KeyStore, StoreLimits

DAY = 86400.0
SECONDS, DOWNTIME = 30 * DAY, 7 * DAY
JUMPS = [days * DAY for days in (40, 3650, -8, -3650)]


@dataclass
class Machine:
    """A clock on the wall, which steps when a test says so, and time that passes."""

    wall: float = 1.7e9
    passed: float = 50.0

    def wait(self, seconds: float) -> None:
        self.wall += seconds
        self.passed += seconds

    @property
    def clocks(self) -> Clocks:
        return Clocks(lambda: self.wall, lambda: self.passed)


@contextmanager
def store_in(folder: Path, machine: Machine, capacity: int = 1000) -> Iterator[KeyStore]:
    limits = StoreLimits(capacity, capacity, SECONDS, DOWNTIME)
    with closing(KeyStore(limits, DiskStorage(folder), machine.clocks)) as store:
        yield store


def in_memory(machine: Machine) -> KeyStore:
    return KeyStore(StoreLimits(1000, 1000, SECONDS, DOWNTIME), MemoryStorage(), machine.clocks)


def add(store: KeyStore, number: int = 0) -> str:
    return store.add("a", "0" * 64, bytes([number]) * 10)


def ids(store: KeyStore) -> list[str]:
    return [entry.id for entry in store.of("a")]


def warnings(caplog: pytest.LogCaptureFixture) -> int:
    return sum(record.message == "key expiry suspended" for record in caplog.records)


# While it runs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", JUMPS)
def test_a_step_of_the_wall_clock_changes_nothing_while_the_service_runs(jump):
    machine = Machine()
    store = in_memory(machine)
    first = add(store, 1)
    machine.wall += jump
    assert store.evict_expired() == 0
    assert store.find("a", first)
    machine.wait(29 * DAY)
    second = add(store, 2)
    assert store.evict_expired() == 0
    machine.wait(2 * DAY)
    assert store.evict_expired() == 1
    assert ids(store) == [second]


def test_what_is_oldest_goes_first_whatever_the_wall_clock_said(tmp_path):
    machine = Machine()
    with store_in(tmp_path, machine, capacity=30) as store:
        first = add(store, 1)
        machine.wall -= 400 * DAY
        machine.wait(1)
        others = [add(store, number) for number in (2, 3)]
    with store_in(tmp_path, machine, capacity=30) as store:
        assert ids(store) == [first, *others]
        add(store, 4)
        assert first not in store


# At the start ----------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", JUMPS)
def test_a_clock_that_has_jumped_at_the_start_deletes_nothing_and_is_named_until_it_is_right(tmp_path, caplog, jump):
    machine = Machine()
    with store_in(tmp_path, machine) as store:
        kept = [add(store, number) for number in range(5)]
    machine.wall += jump
    with store_in(tmp_path, machine) as store:
        assert store.is_expiry_suspended
        assert ids(store) == kept
        (line,) = [record for record in caplog.records if record.message == "key expiry suspended"]
        assert line.levelno == logging.WARNING
        assert abs(line.facts["jump_seconds"] - jump) < 60
        assert "confirm-clock" in line.facts["way_out"]
        machine.wait(1800)
        store.evict_expired()
        assert warnings(caplog) == 1
        machine.wait(1801)
        store.evict_expired()
        assert warnings(caplog) == 2  # it is said now and then
        machine.wait(SECONDS + DAY)
        assert store.evict_expired() == 0
        for key_id in kept[1:]:
            store.find("a", key_id)
        machine.wall -= jump  # somebody sets it right: no confirmation is needed
        assert store.evict_expired() == 1
        assert not store.is_expiry_suspended
        assert ids(store) == kept[1:]
        machine.wait(SECONDS + DAY)
        assert store.evict_expired() == 4


@pytest.mark.parametrize("jump", JUMPS)
def test_what_is_used_while_the_clock_is_wrong_is_right_after_a_restart_with_a_right_one(tmp_path, jump):
    machine = Machine()
    with store_in(tmp_path, machine) as store:
        used, unused = add(store, 1), add(store, 2)
    machine.wall += jump
    with store_in(tmp_path, machine) as store:
        machine.wait(3 * DAY)
        store.find("a", used)
    machine.wall -= jump
    with store_in(tmp_path, machine) as store:
        assert not store.is_expiry_suspended
        assert set(ids(store)) == {used, unused}
        machine.wait(SECONDS - 2 * DAY)
        assert ids(store) == [used]
        machine.wait(2 * DAY + 1)
        assert ids(store) == []


@pytest.mark.parametrize("jump", JUMPS)
def test_what_is_used_while_the_clock_is_doubted_is_young_when_it_is_confirmed(tmp_path, jump):
    """Also by a service that was started again meanwhile."""
    machine = Machine()
    with store_in(tmp_path, machine) as store:
        unused, first, second = (add(store, number) for number in range(3))
    machine.wall += jump
    for key_id in (first, second):
        with store_in(tmp_path, machine) as store:
            machine.wait(DAY)
            store.find("a", key_id)
    with store_in(tmp_path, machine) as store:
        assert store.is_expiry_suspended
        confirm(tmp_path)
        assert store.evict_expired() == (1 if jump > 0 else 0)  # what was used in the future is as old as the doubt
        assert ids(store) == ([] if jump > 0 else [unused]) + [first, second]
        assert all(0 <= machine.wall - entry.used <= 3 * DAY for entry in store.of("a"))
    with store_in(tmp_path, machine) as store:
        assert ids(store) == ([] if jump > 0 else [unused]) + [first, second]
        machine.wait(SECONDS + 1)
        assert ids(store) == []


def test_a_clock_that_is_right_after_a_long_downtime_is_confirmed_and_what_is_over_goes(tmp_path):
    machine = Machine()
    with store_in(tmp_path, machine) as store:
        add(store, 1)
    machine.wait(40 * DAY)
    with store_in(tmp_path, machine) as store:
        machine.wait(1)
        new = add(store, 2)
        assert len(store) == 2
        confirm(tmp_path)
        assert store.evict_expired() == 1
        assert ids(store) == [new]
    assert not (tmp_path / "clock-confirmed").exists()
    with store_in(tmp_path, machine) as store:
        assert not store.is_expiry_suspended
        assert ids(store) == [new]


def test_keys_of_a_clock_that_was_ahead_expire_once_it_is_confirmed_that_it_is_not(tmp_path):
    machine = Machine(wall=1.7e9 + 400 * DAY)
    with store_in(tmp_path, machine) as store:
        first, second = add(store, 1), add(store, 2)
    machine.wall -= 400 * DAY
    confirm(tmp_path)
    with store_in(tmp_path, machine) as store:
        assert not store.is_expiry_suspended
        assert ids(store) == [first, second]
    machine.wait(DAY)
    with store_in(tmp_path, machine) as store:
        assert not store.is_expiry_suspended
        store.find("a", second)
        machine.wait(SECONDS - DAY + 1)
        assert store.evict_expired() == 1
        assert ids(store) == [second]


def test_keys_that_a_former_service_dated_in_the_future_expire(tmp_path):
    """It followed the wall clock, which was ahead by less than a downtime may last."""
    machine = Machine()
    with store_in(tmp_path, machine) as store:
        add(store, 1)
    with closing(sqlite3.connect(tmp_path / "index.sqlite")) as index, index:
        index.execute("UPDATE keys SET used = ?, created = ?", (machine.wall + 6 * DAY,) * 2)
        index.execute("DROP TABLE seen")
    with store_in(tmp_path, machine) as store:
        assert not store.is_expiry_suspended
        machine.wait(SECONDS + 1)
        assert store.evict_expired() == 1


def test_a_service_that_nobody_used_was_not_out_of_use(tmp_path):
    machine = Machine()
    with store_in(tmp_path, machine) as store:
        add(store, 1)
        for _ in range(20):
            machine.wait(DAY)
            store.evict_expired()
        machine.wait(700)
        store.evict_expired()
        with closing(sqlite3.connect(tmp_path / "index.sqlite")) as index:
            ((noted,),) = index.execute("SELECT time FROM seen").fetchall()
        assert machine.wall - noted < 700  # what a kill would leave
    with store_in(tmp_path, machine) as store:
        assert not store.is_expiry_suspended
        machine.wait(11 * DAY)
        assert store.evict_expired() == 1


@pytest.mark.parametrize("jump", JUMPS)
def test_bounds_hold_and_tenants_are_purged_while_expiry_is_suspended(tmp_path, jump):
    machine = Machine()
    with store_in(tmp_path, machine, capacity=30) as store:
        first, second, third = (add(store, number) for number in range(3))
        theirs = store.add("b", "0" * 64, b"")
    machine.wall += jump
    with store_in(tmp_path, machine, capacity=30) as store:
        store.find("a", first)
        new = add(store, 4)
        assert ids(store) == [third, first, new]
        assert second not in store
        assert store.purge({"a", "nobody"}) == 3
        assert ids(store) == []
        assert {path.name for path in (tmp_path / "frames").iterdir()} == {theirs}
    with store_in(tmp_path, machine) as store:
        assert store.find("b", theirs)


def test_a_folder_without_a_time_believes_the_clock_and_a_full_disk_is_no_hindrance(tmp_path, monkeypatch):
    def fails(_storage: DiskStorage, _seen: object) -> None:
        raise StorageError("full")

    monkeypatch.setattr(DiskStorage, "note_seen", fails)
    with store_in(tmp_path, Machine()) as store:
        assert not store.is_expiry_suspended
    with store_in(tmp_path, Machine(wall=5.0)) as store:
        assert not store.is_expiry_suspended


@given(
    st.floats(-1e9, 1e9), st.floats(-1e9, 1e9), st.lists(st.tuples(st.floats(0, 1e6), st.floats(-1e9, 1e9)), max_size=8)
)
def test_time_goes_on_at_the_rate_of_what_passes(last, wall, steps):
    machine = Machine(wall=wall)
    clock = KeyClock(Seen(last), DOWNTIME, machine.clocks)
    assert clock.is_doubted == (abs(wall - last) > DOWNTIME)
    start = clock()
    assert start == pytest.approx(last if clock.is_doubted else wall, abs=1e-3)
    for passed, jump in steps:
        machine.wait(passed)
        machine.wall += jump
        assert clock() - start == pytest.approx(machine.passed - 50.0, abs=1e-3)
    was_doubted = clock.is_doubted
    before, redate = clock(), clock.look(is_confirmed=True)
    assert (redate is not None) == was_doubted
    assert not clock.is_doubted
    if redate is not None:
        assert clock() == pytest.approx(machine.wall, abs=1e-3)
        times = sorted([last - 1, last, start, before, (start + before) / 2])
        redated = [redate(time) for time in times]
        assert redated == sorted(redated)
        assert redated[-1] <= clock() + 1e-3
        if before > last:
            assert redated[-1] == pytest.approx(clock(), abs=1e-3)


def confirm(folder: Path) -> None:
    done = CliRunner().invoke(app, ["confirm-clock", "--key-folder", str(folder)])
    assert done.exit_code == 0, done.output
