"""Clients' evaluation keys, in memory and on disk: bounds, tenants, restarts, and ends without warning."""

import errno
import logging
import os
import random
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from heinfer.errors import SettingError, UnknownKeysError
from heinfer_server.errors import StorageError
from heinfer_server.evaluation.loaded import LoadedKeys
from heinfer_server.keys import frame_file
from heinfer_server.keys.clock import Clocks, Seen
from heinfer_server.keys.disk_storage import DiskStorage
from heinfer_server.keys.memory_storage import MemoryStorage
from heinfer_server.keys.storage import address
from heinfer_server.keys.store import KeyStore, StoreLimits

KEY_SET = "0" * 64


class Clock:
    """Seconds that pass when a test says so, and a little whenever somebody looks."""

    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


@pytest.fixture(params=["memory", "disk"])
def storage(request, tmp_path):
    with closing(MemoryStorage() if request.param == "memory" else DiskStorage(tmp_path / "keys")) as storage:
        yield storage


def store_on(storage, capacity: int = 100, quota: int = 100, seconds: float = 1000.0) -> KeyStore:
    clock = Clock()
    return KeyStore(StoreLimits(capacity, quota, seconds), storage, Clocks(clock, clock))


def frame(size: int, number: int = 0) -> bytes:
    return bytes([number]) * size


def add(store: KeyStore, size: int, number: int = 0, tenant: str = "a") -> str:
    return store.add(tenant, KEY_SET, frame(size, number))


def read(store: KeyStore, key_id: str) -> bytes:
    """The frame, as a worker gets it."""
    frame = store.open(key_id)
    with frame.mapped() as mapped:
        return bytes(mapped)


# Addresses -------------------------------------------------------------------------------------


def test_keys_are_where_their_content_says(storage):
    store = store_on(storage)
    first, second = add(store, 10, 1), add(store, 10, 2)
    assert add(store, 10, 1) == first != second
    assert len(store) == 2
    assert read(store, first) == frame(10, 1)
    assert store.find("a", second).key_set == KEY_SET
    assert {entry.id for entry in store.of("a")} == {first, second}


def test_an_address_depends_on_every_part_of_it_and_where_it_ends():
    parts = ("a", KEY_SET, "f" * 64)
    others = [("b", *parts[1:]), ("a0", KEY_SET[1:], parts[2]), ("a", "1" * 64, parts[2]), (*parts[:2], "e" * 64)]
    assert len({address(*parts), *(address(*other) for other in others)}) == 5
    assert len(address(*parts)) == 64


def test_a_tenant_has_no_way_to_anothers_keys(storage):
    store = store_on(storage)
    key_id = add(store, 10, 1, "a")
    assert add(store, 10, 1, "b") != key_id  # the same content, and yet not the same thing
    with pytest.raises(UnknownKeysError):
        store.find("b", key_id)
    with pytest.raises(UnknownKeysError):
        store.remove("b", key_id)
    assert [entry.tenant for entry in store.of("a")] == ["a"]
    assert store.find("a", key_id).size == 10


# Bounds ----------------------------------------------------------------------------------------


def test_the_least_recently_used_keys_go_first(storage):
    store = store_on(storage)
    first, second = add(store, 40, 1), add(store, 40, 2)
    store.find("a", first)
    third = add(store, 60, 3)
    assert [key_id in store for key_id in (first, second, third)] == [True, False, True]
    with pytest.raises(UnknownKeysError):
        read(store, second)


def test_the_store_stays_within_its_bound(storage):
    store = store_on(storage)
    for number, size in enumerate((30, 70, 10, 90, 100, 1)):
        add(store, size, number)
        assert sum(entry.size for entry in store.of("a")) <= 100
    assert len(store) == 1
    with pytest.raises(SettingError):
        add(store, 101)


def test_a_quota_takes_from_who_exceeds_it_and_from_nobody_else(storage):
    store = store_on(storage, capacity=1000, quota=50)
    kept = add(store, 40, 1, "b")
    first, second = add(store, 30, 1), add(store, 30, 2)
    assert [key_id in store for key_id in (kept, first, second)] == [True, False, True]
    with pytest.raises(SettingError):
        add(store, 51)


def test_who_has_most_gives_when_all_of_it_is_full(storage):
    store = store_on(storage)
    oldest = add(store, 10, 1, "small")
    large = [add(store, 30, number, "large") for number in range(3)]
    new = add(store, 20, 2, "small")
    assert oldest in store
    assert new in store
    assert [key_id in store for key_id in large] == [False, True, True]


def test_keys_that_nobody_uses_are_over_in_time(storage):
    clock = Clock()
    store = KeyStore(StoreLimits(100, 100, 60.0), storage, Clocks(clock, clock))
    used, unused = add(store, 10, 1), add(store, 10, 2)
    clock.now += 40
    store.find("a", used)
    clock.now += 40
    with pytest.raises(UnknownKeysError):
        store.find("a", unused)
    assert [entry.id for entry in store.of("a")] == [used]
    assert store.evict_expired() == 1
    assert unused not in store
    assert store.evict_expired() == 0


def test_a_worker_forgets_keys_that_are_gone_and_the_oldest(storage):
    store = store_on(storage)
    loaded = LoadedKeys(store, most=4)
    ids = [add(store, 1, number) for number in range(5)]
    for key_id in ids[:4]:
        loaded.add(key_id)
    assert loaded.make_room(ids[0]) == ()  # it has these
    assert loaded.make_room(ids[-1]) == (ids[0],)
    store.remove("a", ids[2])
    assert loaded.make_room(ids[-1]) == (ids[2],)
    assert [key_id in loaded for key_id in ids] == [False, True, False, True, False]
    loaded = LoadedKeys(store, most=1)
    loaded.add(ids[1])
    assert loaded.make_room(ids[1]) == ()
    assert loaded.make_room(ids[3]) == (ids[1],)


# On disk ---------------------------------------------------------------------------------------


def files(folder: Path) -> set[str]:
    return {path.name for path in (folder / "frames").iterdir()}


FORMER = """
CREATE TABLE keys (
    id TEXT PRIMARY KEY, tenant TEXT NOT NULL, model TEXT NOT NULL, manifest TEXT NOT NULL, digest TEXT NOT NULL,
    size INTEGER NOT NULL, created REAL NOT NULL, used REAL NOT NULL
) STRICT;
PRAGMA user_version = 1;
"""


def former_folder(folder: Path, number: int) -> None:
    """As the version before kept keys."""
    (folder / "frames").mkdir(parents=True)
    (folder / "lock").touch()
    with closing(sqlite3.connect(folder / "index.sqlite")) as index, index:
        index.execute("PRAGMA journal_mode = WAL")
        index.executescript(FORMER)
        for key in range(number):
            row = (f"{key:064x}", "a", "tiny", "0" * 64, "0" * 64, 10, 1e9, 1e9)
            index.execute("INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            (folder / "frames" / f"{key:064x}").write_bytes(frame(10))


@pytest.mark.parametrize("number", [0, 3])
def test_keys_of_the_former_format_go_once_with_a_line_that_says_how_many_and_why(tmp_path, caplog, number):
    former_folder(tmp_path, number)
    with caplog.at_level(logging.INFO), closing(store_on(DiskStorage(tmp_path))) as store:
        assert store.of("a") == []
        assert files(tmp_path) == set()
        key_id = add(store, 10, 1)
    facts = [record.facts for record in caplog.records if record.message == "former keys removed"]
    assert [fact["keys"] for fact in facts] == ([number] if number else [])
    assert all("another format" in fact["reason"] and "register" in fact["reason"] for fact in facts)
    caplog.clear()
    with caplog.at_level(logging.INFO), closing(store_on(DiskStorage(tmp_path))) as store:
        assert [entry.id for entry in store.of("a")] == [key_id]
    assert not caplog.records


DIES = """
import os, sys
from pathlib import Path
from heinfer_server.keys import frame_file
from heinfer_server.keys.disk_storage import DiskStorage
DiskStorage._swept = lambda _storage: os._exit(9)
DiskStorage(Path(sys.argv[1]))
"""


def test_a_former_folder_whose_change_was_cut_off_is_clean_after_the_next_start(tmp_path):
    former_folder(tmp_path, 3)
    assert subprocess.run([sys.executable, "-c", DIES, str(tmp_path)], check=False).returncode == 9
    assert len(files(tmp_path)) == 3
    with closing(store_on(DiskStorage(tmp_path))) as store:
        assert store.of("a") == []
        assert files(tmp_path) == set()


def test_keys_outlive_the_process_with_when_they_were_used(tmp_path):
    with closing(store_on(DiskStorage(tmp_path))) as store:
        first, second = add(store, 40, 1), add(store, 40, 2)
        store.find("a", first)
    with closing(store_on(DiskStorage(tmp_path))) as store:
        assert read(store, first) == frame(40, 1)
        assert [entry.id for entry in store.of("a")] == [second, first]
        add(store, 40, 3)
        assert second not in store
        assert files(tmp_path) == {entry.id for entry in store.of("a")}


def test_a_smaller_bound_is_kept_from_the_start(tmp_path):
    with closing(store_on(DiskStorage(tmp_path))) as store:
        add(store, 40, 1)
        second = add(store, 40, 2)
    with closing(store_on(DiskStorage(tmp_path), capacity=50)) as store:
        assert files(tmp_path) == {second} == {entry.id for entry in store.of("a")}


def test_nobody_else_may_read_what_is_kept(tmp_path):
    old = os.umask(0)
    try:
        folder = tmp_path / "deep" / "keys"
        with closing(store_on(DiskStorage(folder))) as store:
            add(store, 10)
            modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.rglob("*")]}
    finally:
        os.umask(old)
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}
    assert len(modes) >= 5  # index, its log, lock, frame


def test_what_is_damaged_is_gone(tmp_path):
    with closing(store_on(DiskStorage(tmp_path))) as store:
        changed, short, missing, sound = (add(store, 20, number) for number in range(4))
        (tmp_path / "frames" / changed).write_bytes(frame(20, 9))
        with pytest.raises(UnknownKeysError):
            read(store, changed)
        assert changed not in store
    (tmp_path / "frames" / short).write_bytes(b"x")
    (tmp_path / "frames" / missing).unlink()
    stray = tmp_path / "frames" / ("f" * 64)
    stray.write_bytes(b"x")
    with closing(store_on(DiskStorage(tmp_path))) as store:
        assert sound in store
        assert short not in store
        assert missing not in store
        assert stray.name not in files(tmp_path)


def test_what_is_registered_again_while_it_is_found_missing_stays(storage, monkeypatch):
    store = store_on(storage)
    key_id, opened = add(store, 20), storage.open

    def and_again(entry: object) -> None:
        monkeypatch.setattr(storage, "open", opened)
        store.remove("a", key_id)
        add(store, 20)

    monkeypatch.setattr(storage, "open", and_again)
    with pytest.raises(UnknownKeysError):
        read(store, key_id)
    assert read(store, key_id) == frame(20)
    assert store.total_bytes == 20


def test_a_disk_that_fails_for_a_moment_costs_nobody_its_keys(tmp_path, monkeypatch):
    with closing(store_on(DiskStorage(tmp_path))) as store:
        key_id = add(store, 20)
        with monkeypatch.context() as patch:
            patch.setattr(frame_file.os, "pread", fails)
            with pytest.raises(StorageError):
                read(store, key_id)
        assert read(store, key_id) == frame(20)


def fails(*_arguments: int) -> bytes:
    raise OSError(errno.EIO, "Input/output error")


def test_a_volume_may_have_what_its_file_system_puts_there(tmp_path):
    (tmp_path / "lost+found").mkdir()
    with closing(store_on(DiskStorage(tmp_path))) as store:
        assert add(store, 20) in store


def test_what_cannot_be_read_takes_no_room(tmp_path):
    with closing(store_on(DiskStorage(tmp_path))) as store:
        key_id = add(store, 20)
        (tmp_path / "frames" / key_id).write_bytes(frame(20, 9))
        with pytest.raises(UnknownKeysError):
            read(store, key_id)
        assert key_id not in files(tmp_path)


def test_a_folder_is_one_servers_alone(tmp_path):
    with closing(DiskStorage(tmp_path)), pytest.raises(SettingError, match="another server keeps its keys"):
        DiskStorage(tmp_path)
    DiskStorage(tmp_path).close()


def test_an_index_of_somebody_elses_that_is_in_its_log_alone_is_left_as_it_is(tmp_path):
    """As a process that was killed leaves it: the file itself has no table yet."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    with closing(sqlite3.connect(tmp_path / "index.sqlite")) as theirs:
        theirs.execute("PRAGMA journal_mode = WAL")
        theirs.execute("CREATE TABLE theirs (x)")
        theirs.commit()
        for name in ("index.sqlite", "index.sqlite-wal"):
            (folder / name).write_bytes((tmp_path / name).read_bytes())
    folder.chmod(0o755)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(SettingError, match="has other things in it"):
        DiskStorage(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_an_index_of_our_own_that_is_in_its_log_alone_is_taken(tmp_path):
    folder = tmp_path / "ours"
    with closing(DiskStorage(tmp_path / "live")) as storage:
        storage.note_seen(Seen(1.0, None))
        folder.mkdir()
        for name in ("index.sqlite", "index.sqlite-wal"):
            (folder / name).write_bytes((tmp_path / "live" / name).read_bytes())
    with closing(DiskStorage(folder)) as storage:
        assert storage.seen() == Seen(1.0, None)


def test_a_folder_of_somebody_elses_is_left_as_it_is(tmp_path):
    (tmp_path / "theirs").write_text("x")
    tmp_path.chmod(0o755)
    with pytest.raises(SettingError, match="has other things in it"):
        DiskStorage(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    assert {path.name for path in tmp_path.iterdir()} == {"theirs"}
    with pytest.raises(SettingError, match="is no folder"):
        DiskStorage(tmp_path / "theirs")


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Mode and content of all that is in a folder, and of itself."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in [folder, *folder.rglob("*")]
    }


def video(folder: Path) -> None:
    (folder / "script.txt").write_text("x")
    pictures(folder)


def pictures(folder: Path) -> None:
    (folder / "frames").mkdir()
    for number in range(3):
        (folder / "frames" / f"{number:04}.png").write_bytes(b"x")


def var(folder: Path) -> None:
    (folder / "lock").mkdir()


def kept_keys(folder: Path) -> None:
    with closing(store_on(DiskStorage(folder))) as store:
        add(store, 10)
    folder.chmod(0o755)


def keys_and_more(folder: Path) -> None:
    kept_keys(folder)
    (folder / "notes.txt").write_text("x")


def keys_and_pictures(folder: Path) -> None:
    kept_keys(folder)
    (folder / "frames" / "0000.png").write_bytes(b"x")


def keys_and_a_folder_of_a_frames_name(folder: Path) -> None:
    kept_keys(folder)
    (folder / "frames" / ("0" * 64)).mkdir()


def frames_without_index(folder: Path) -> None:
    (folder / "frames").mkdir()
    (folder / "frames" / ("0" * 64)).write_bytes(b"x")


def database(folder: Path, script: str) -> None:
    (folder / "frames").mkdir()
    with closing(sqlite3.connect(folder / "index.sqlite")) as index:
        index.executescript(script)


THEIRS = {
    "a film's": video,
    "pictures": pictures,
    "/var": var,
    "a linked lock": lambda folder: (folder / "lock").symlink_to("/dev/null"),
    "a piped index": lambda folder: os.mkfifo(folder / "index.sqlite"),
    "another database": lambda folder: database(folder, "CREATE TABLE pages (id)"),
    "other keys": lambda folder: database(folder, "CREATE TABLE keys (id, note); PRAGMA user_version = 1"),
    "keys and more": keys_and_more,
    "keys and pictures": keys_and_pictures,
    "a folder of a frame's name": keys_and_a_folder_of_a_frames_name,
    "frames without index": frames_without_index,
}


@pytest.mark.parametrize("name", THEIRS)
def test_a_folder_for_something_else_is_refused_before_anything_in_it_changes(tmp_path, name):
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o755)
    THEIRS[name](folder)
    before = state(folder)
    with pytest.raises(SettingError, match="HEINFER_SERVER_KEY_FOLDER a folder of its own"):
        DiskStorage(folder)
    assert state(folder) == before


CUT_OFF = {
    "at once": (),
    "before frames": ("lock",),
    "before the lock": ("frames/",),
    "before the index": ("frames/", "lock"),
    "before its content": ("frames/", "lock", "index.sqlite"),
    "while the clock was confirmed": ("frames/", "lock", "clock-confirmed", ".clock-confirmed.0123456789abcdef"),
}


@pytest.mark.parametrize("when", CUT_OFF)
def test_a_first_start_that_was_cut_off_keeps_the_next_from_nothing(tmp_path, when):
    for name in CUT_OFF[when]:
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).touch()
    with closing(store_on(DiskStorage(tmp_path))) as store:
        assert add(store, 10) in store


FIRST_START = """
import os, sys
from pathlib import Path
from heinfer_server.keys.disk_storage import DiskStorage
left = int(sys.argv[2])
def step(frame, event, _argument):
    global left
    if frame.f_code.co_filename.endswith("disk_storage.py") and event == "line":
        left -= 1
        if left < 0:
            os._exit(9)
    return step
sys.settrace(step)
DiskStorage(Path(sys.argv[1]))
"""


def test_a_first_start_may_be_killed_at_any_line(tmp_path):
    for line in range(5, 75, 7):
        folder = tmp_path / str(line)
        subprocess.run([sys.executable, "-c", FIRST_START, str(folder), str(line)], check=False)
        DiskStorage(folder).close()


def test_a_restored_folder_without_lock_is_taken(tmp_path):
    kept_keys(tmp_path)
    (tmp_path / "lock").unlink()
    with closing(store_on(DiskStorage(tmp_path))) as store:
        assert len(store.of("a")) == 1


def test_the_log_says_how_many_frames_a_start_has_removed(tmp_path, caplog):
    kept_keys(tmp_path)
    for number in range(3):
        (tmp_path / "frames" / f"{number:064x}.part").write_bytes(b"x")
    with caplog.at_level(logging.INFO):
        DiskStorage(tmp_path).close()
        DiskStorage(tmp_path).close()
    assert [record.facts for record in caplog.records] == [{"frames": 3}]
    assert caplog.records[0].message == "left over frames removed"


def test_a_link_in_the_place_of_frames_leads_to_no_other_folder(tmp_path):
    """Whoever could write the folder before might have made it; what is not indexed would be removed there."""
    (tmp_path / "theirs").mkdir(mode=0o755)
    (tmp_path / "theirs" / "file").write_text("x")
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "frames").symlink_to(tmp_path / "theirs")
    with pytest.raises(SettingError, match="cannot be kept"):
        DiskStorage(tmp_path / "keys")
    assert (tmp_path / "theirs" / "file").read_text() == "x"
    assert stat.S_IMODE((tmp_path / "theirs").stat().st_mode) == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a folder of another user's")
def test_a_service_of_roots_keeps_no_keys_where_another_user_may_put_links(tmp_path):
    (tmp_path / "keys").mkdir(mode=0o755)
    os.chown(tmp_path / "keys", 65534, 65534)
    with pytest.raises(SettingError, match=r"belongs to user 65534, .* runs as user 0: .*chown -R 0 "):
        DiskStorage(tmp_path / "keys")
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o755


def test_a_folder_of_the_future_or_none_is_refused(tmp_path):
    DiskStorage(tmp_path / "new").close()
    with closing(sqlite3.connect(tmp_path / "new" / "index.sqlite")) as index:
        index.execute("PRAGMA user_version = 99")
    (tmp_path / "file").write_text("")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "index.sqlite").write_text("no database " * 100)
    for name, reason in (("new", "newer heinfer"), ("file", "is no folder"), ("damaged", "cannot be kept")):
        with pytest.raises(SettingError, match=reason):
            DiskStorage(tmp_path / name)


def test_a_disk_that_takes_no_more_changes_nothing(tmp_path):
    """The limit on a file's size stands for a full disk: the write fails in the middle."""
    with closing(store_on(DiskStorage(tmp_path), capacity=1 << 30, quota=1 << 30)) as store:
        kept = add(store, 1000, 1)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
        try:
            with pytest.raises(StorageError, match="fails or is full"):
                add(store, 1 << 21, 2)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert files(tmp_path) == {kept} == {entry.id for entry in store.of("a")}
        assert add(store, 1 << 21, 2) in store


REGISTERS = """
import sys, os, random
from pathlib import Path
from heinfer_server.keys import frame_file
from heinfer_server.keys.disk_storage import DiskStorage
from heinfer_server.keys.store import KeyStore, StoreLimits
store = KeyStore(StoreLimits(40 * 20_000, 40 * 20_000), DiskStorage(Path(sys.argv[1])))
rng = random.Random(int(sys.argv[2]))
print("ready", flush=True)
while True:
    if rng.random() < 0.2 and len(store):
        gone = rng.choice(store.of("a")).id
        print("-" + gone, flush=True)
        store.remove("a", gone)
    else:
        print("+" + store.add("a", "0" * 64, rng.randbytes(rng.randrange(1, 20_000))), flush=True)
"""


def test_whenever_it_is_killed_no_registered_key_is_lost_and_nothing_is_left_over(tmp_path):
    registered: dict[str, None] = {}
    rng = random.Random(0)
    for run in range(8):
        command = [sys.executable, "-c", REGISTERS, str(tmp_path), str(run)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(rng.uniform(0.01, 0.3))
            process.send_signal(signal.SIGKILL)
            lines = [line for line in process.stdout.read().split("\n")[:-1] if line]
        for line in lines:
            registered.pop(line[1:], None)
            if line[0] == "+":
                registered[line[1:]] = None
        assert lines
        with closing(KeyStore(StoreLimits(1 << 30, 1 << 30), DiskStorage(tmp_path))) as store:
            there = {entry.id for entry in store.of("a")}
            assert files(tmp_path) == there
            for entry in store.of("a"):
                assert len(read(store, entry.id)) == entry.size
            # The bound of the writer lets the oldest go: those of the last 20 that were not removed must be there.
            assert set(list(registered)[-20:]) <= there
