"""What an operator does with the folder of keys, as its user or as root: list, save, bring back, confirm the clock."""

import os
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from click.testing import Result
from server_process import alive, children_of, wait_until
from test_key_store import read
from typer.testing import CliRunner

from heinfer.errors import SettingError
from heinfer_cli.main import app
from heinfer_server.admission.tenants import TenantFile
from heinfer_server.keys.disk_storage import DiskStorage
from heinfer_server.keys.store import KeyStore, StoreLimits
from heinfer_server.operator import apart as apart_module
from heinfer_server.operator.apart import apart
from heinfer_server.operator.stored import back_up, confirm_clock, stored_sets

KEY_SET = "ab" * 32
SERVICE = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be root and to become somebody else")


def store(folder: Path) -> KeyStore:
    return KeyStore(StoreLimits(1 << 30, 1 << 30), DiskStorage(folder))


def run(*words: str) -> Result:
    return CliRunner().invoke(app, words)


@pytest.fixture
def file(tmp_path) -> TenantFile:
    file = TenantFile(tmp_path / "tenants.json")
    file.add("alice")
    return file


def id_of(file: TenantFile) -> str:
    return file.tenants()[0].id


# A list ----------------------------------------------------------------------------------------


def test_stored_sets_are_listed_while_a_service_has_them_without_their_ids(tmp_path, file):
    folder = tmp_path / "keys"
    with closing(store(folder)) as keys:
        ids = [keys.add(tenant, KEY_SET, bytes(1234)) for tenant in (id_of(file), "f" * 16)]
        before = sorted(path.name for path in folder.iterdir())
        place = ("--tenants", str(file.path), "--key-folder", str(folder))
        every, hers, theirs = (run("tenant", "keys", *who, *place) for who in ((), ("alice",), ("f" * 16,)))
        assert sorted(path.name for path in folder.iterdir()) == before
    for done, names in ((every, {"alice", "f" * 16}), (hers, {"alice"}), (theirs, {"f" * 16})):
        assert done.exit_code == 0, done.output
        rows = done.output.splitlines()[1:]
        assert {row.split()[0] for row in rows} == names
        assert all(KEY_SET[:8] in row and "1,234" in row for row in rows)
        assert not any(key_id[:16] in done.output for key_id in ids)
    assert run("tenant", "keys", "bob", *place).exit_code == 2


def test_stored_sets_are_listed_when_no_service_runs(tmp_path):
    with closing(store(tmp_path)) as keys:
        keys.add("default", KEY_SET, b"x")
    (entry,) = stored_sets(tmp_path)
    assert (entry.tenant, entry.key_set, entry.size) == ("default", KEY_SET, 1)


FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "none": (lambda folder: folder.rmdir(), "cannot be read"),
    "empty": (lambda _folder: None, "no index of keys"),
    "damaged": (lambda folder: (folder / "index.sqlite").write_text("no database " * 100), "not a database"),
    "of the future": (lambda folder: execute(folder, "PRAGMA user_version = 99"), "a newer heinfer"),
    "of no heinfer": (lambda folder: execute(folder, "CREATE TABLE x (y)"), "former heinfer"),
}


def execute(folder: Path, text: str) -> None:
    with closing(sqlite3.connect(folder / "index.sqlite")) as index, index:
        index.execute(text)


@pytest.mark.parametrize(("make", "reason"), FOLDERS.values(), ids=FOLDERS)
def test_a_folder_that_is_none_of_keys_is_refused_and_leaves_nothing(tmp_path, make, reason):
    folder, target = tmp_path / "keys", tmp_path / "saved.tar"
    folder.mkdir()
    make(folder)
    for act in (lambda: stored_sets(folder), lambda: back_up(folder, None, target)):
        with pytest.raises(SettingError, match=reason):
            act()
    assert not target.exists()


def test_an_index_with_what_no_service_writes_is_not_shown(tmp_path):
    with closing(store(tmp_path)) as keys:
        keys.add("a\x1b[31m", KEY_SET, b"x")
    with pytest.raises(SettingError, match="that no heinfer wrote"):
        stored_sets(tmp_path)


# A backup --------------------------------------------------------------------------------------


def restored(target: Path, folder: Path) -> KeyStore:
    folder.mkdir()
    subprocess.run(["tar", "-xpf", str(target), "-C", str(folder)], check=True)
    return store(folder / "keys")


def test_a_backup_has_what_was_there_and_nothing_else(tmp_path, file):
    target, folder = tmp_path / "saved.tar", tmp_path / "keys"
    frames = [os.urandom(size) for size in (1, 511, 512, 513, 100_000)]
    with closing(store(folder)) as keys:
        ids = [keys.add("a", KEY_SET, frame) for frame in frames]
        done = run("backup", str(target), "--key-folder", str(folder), "--tenants", str(file.path))
        assert done.exit_code == 0, done.output
        keys.remove("a", ids[0])
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert f"{target.stat().st_size:,}" in done.output
    with tarfile.open(target) as archive:
        names = {member.name for member in archive}
        assert all(member.mode == 0o600 and member.isreg() for member in archive)
    assert names == {"tenants.json", "keys/index.sqlite", *(f"keys/frames/{key_id}" for key_id in ids)}
    with closing(restored(target, tmp_path / "other")) as keys:
        assert [read(keys, key_id) for key_id in ids] == frames
    assert (tmp_path / "other" / "tenants.json").read_bytes() == file.path.read_bytes()


COMES_AND_GOES = """
import os, sys
from pathlib import Path
from heinfer_server.keys.disk_storage import DiskStorage
from heinfer_server.keys.store import KeyStore, StoreLimits
store = KeyStore(StoreLimits(1 << 30, 1 << 30), DiskStorage(Path(sys.argv[1])))
while True:
    key_id = store.add("b", "ab" * 32, os.urandom(20_000))
    print(key_id, flush=True)
    store.remove("b", key_id)
"""


def test_a_backup_while_keys_come_and_go_is_of_one_moment(tmp_path):
    """Whatever was there before and stayed is in it, whole."""
    folder = tmp_path / "keys"
    with closing(store(folder)) as keys:
        kept = {keys.add("a", KEY_SET, os.urandom(20_000)) for _ in range(20)}
    command = [sys.executable, "-c", COMES_AND_GOES, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for number in range(10):
            for _ in range(3):
                assert process.stdout.readline()
            back_up(folder, None, tmp_path / f"{number}.tar")
        assert process.poll() is None
        process.kill()
    for number in range(10):
        with closing(restored(tmp_path / f"{number}.tar", tmp_path / str(number))) as keys:
            assert {entry.id for entry in keys.of("a")} == kept
            for key_id in kept | {entry.id for entry in keys.of("b")}:
                assert len(read(keys, key_id)) == 20_000  # its digest is right


def test_a_backup_replaces_nothing_and_a_full_disk_leaves_none(tmp_path, file):
    target = tmp_path / "saved.tar"
    target.write_text("theirs")
    with pytest.raises(SettingError, match="cannot be made: File exists"):
        back_up(None, file.path, target)
    assert target.read_text() == "theirs"
    (tmp_path / "link.tar").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SettingError, match="cannot be made: File exists"):
        back_up(None, file.path, tmp_path / "link.tar")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))  # stands for the full disk
    try:
        with pytest.raises(SettingError, match="cannot be written: File too large"):
            back_up(None, file.path, tmp_path / "new.tar")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert run("backup", str(tmp_path / "new.tar")).exit_code == 2
    with pytest.raises(SettingError, match="no file of tenants"):
        back_up(None, tmp_path / "none.json", tmp_path / "new.tar")
    assert not (tmp_path / "new.tar").exists()


# As root, in a folder of the service's user ----------------------------------------------------


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that only root may enter, with the folder of the service in it, as systemd has them."""
    with tempfile.TemporaryDirectory(prefix="heinfer-test-") as name:
        base = Path(name)
        (base / "secret").write_text("root:$6$secret\n")
        (base / "secret").chmod(0o600)
        with closing(store(base / "theirs")) as keys:
            keys.add("0" * 16, KEY_SET, b"only-root-knows")
        (base / "service").mkdir(mode=0o700)
        with closing(store(base / "service" / "keys")) as keys:
            keys.add("f" * 16, KEY_SET, b"x")
        for path in (base / "service", *(base / "service").rglob("*")):
            os.chown(path, SERVICE, SERVICE)
        yield base


@needs_root
def test_root_reads_a_folder_as_its_user_who_need_not_be_able_to_go_there(place):
    assert [entry.tenant for entry in stored_sets(place / "service" / "keys")] == ["f" * 16]
    back_up(place / "service" / "keys", None, place / "saved.tar")
    with tarfile.open(place / "saved.tar") as archive:
        assert len(archive.getnames()) == 2
    assert (place / "saved.tar").stat().st_uid == 0
    assert all(path.stat().st_uid == SERVICE for path in (place / "service").rglob("*"))
    confirm_clock(place / "service" / "keys")
    found = (place / "service" / "keys" / "clock-confirmed").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (SERVICE, SERVICE, 0o600)


@needs_root
def test_the_process_that_reads_is_the_folders_user_and_sees_nothing_else(place):
    def look(folder: Path, answer: object) -> None:
        there = sorted(path.name for path in folder.iterdir())
        ids = os.getresuid(), os.getresgid(), os.getgroups()
        answer.write(repr((str(folder), there, ids)).encode())

    with apart(place / "service" / "keys", look) as answer:
        seen = answer.read().decode()
    assert seen == repr(("/", ["frames", "index.sqlite", "lock"], ((SERVICE,) * 3, (SERVICE,) * 3, [])))


@needs_root
@pytest.mark.parametrize("name", ["index.sqlite", "index.sqlite-wal", "index.sqlite-shm", "frames"])
def test_links_that_the_service_has_planted_lead_root_nowhere(place, name):
    keys = place / "service" / "keys"
    target = {"index.sqlite": "theirs/index.sqlite", "frames": "theirs/frames"}.get(name, "secret")
    before = {
        path: (path.stat().st_uid, path.read_bytes()) for path in (place / "secret", place / "theirs" / "index.sqlite")
    }
    if name == "frames":
        (keys / "frames").rename(keys / "old")
    else:
        (keys / name).unlink(missing_ok=True)
    (keys / name).symlink_to(place / target)
    shown: list[object] = []
    for act in (lambda: shown.append(stored_sets(keys)), lambda: back_up(keys, None, place / "saved.tar")):
        with suppress(SettingError):
            act()
    assert "0" * 16 not in repr(shown)
    if (place / "saved.tar").exists():
        content = (place / "saved.tar").read_bytes()
        assert b"only-root-knows" not in content
        assert b"$6$" not in content
    assert before == {path: (path.stat().st_uid, path.read_bytes()) for path in before}


@needs_root
def test_a_link_in_the_place_of_the_confirmation_is_not_followed(place):
    keys = place / "service" / "keys"
    (keys / "clock-confirmed").symlink_to(place / "secret")
    with pytest.raises(SettingError, match="is a link"):
        confirm_clock(keys)
    assert (place / "secret").read_text() == "root:$6$secret\n"


# What the service's user may plant -------------------------------------------------------------


def sparse(path: Path) -> None:
    size = path.stat().st_size
    path.unlink()
    path.touch()
    os.truncate(path, size)


def replaced(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def act(path: Path) -> None:
        path.unlink()
        make(path)

    return act


FRAMES: dict[str, Callable[[Path], object]] = {
    "a pipe": replaced(os.mkfifo),
    "a folder": replaced(Path.mkdir),
    "a link": replaced(lambda path: path.symlink_to("/etc/passwd")),
    "longer": lambda path: os.truncate(path, 1 << 30),
    "shorter": lambda path: os.truncate(path, 5),
    "sparse": sparse,
}


@pytest.mark.parametrize("plant", FRAMES.values(), ids=FRAMES)
def test_what_is_no_frame_is_left_out_of_a_backup(tmp_path, plant):
    folder = tmp_path / "keys"
    with closing(store(folder)) as keys:
        good, bad = (keys.add("a", KEY_SET, os.urandom(1 << 20)) for _ in range(2))
    plant(folder / "frames" / bad)
    size = back_up(folder, None, tmp_path / "saved.tar")
    with tarfile.open(tmp_path / "saved.tar") as archive:
        assert archive.getnames() == ["keys/index.sqlite", f"keys/frames/{good}"]
    assert size < 3 << 20
    with closing(restored(tmp_path / "saved.tar", tmp_path / "other")) as keys:
        assert [entry.id for entry in keys.of("a")] == [good]


ENDLESS = """
DROP TABLE keys;
CREATE VIEW keys AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)
SELECT printf('%064d', x) id, printf('%016d', x) tenant, printf('%064d', x) key_set, '' digest, 1 size, 1.0 created,
    1.0 used FROM c;
"""
INDEXES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a pipe": (replaced(os.mkfifo), "no index of keys"),
    "a pipe for a log": (lambda path: os.mkfifo(f"{path}-wal"), "index.sqlite-wal is no file"),
    "without an end": (lambda path: script(path, ENDLESS), "no heinfer wrote its index"),
}


def script(path: Path, text: str) -> None:
    with closing(sqlite3.connect(path)) as index:
        index.executescript(text)


@pytest.mark.parametrize(("plant", "reason"), INDEXES.values(), ids=INDEXES)
def test_what_is_no_index_is_refused_at_once(tmp_path, plant, reason):
    folder = tmp_path / "keys"
    store(folder).close()
    plant(folder / "index.sqlite")
    for act in (lambda: stored_sets(folder), lambda: back_up(folder, None, tmp_path / "saved.tar")):
        with pytest.raises(SettingError, match=reason):
            act()
    assert not (tmp_path / "saved.tar").exists()


def pause(folder: Path, answer: object) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def hoard(folder: Path, answer: object) -> None:
    bytearray(4 << 30)


@pytest.mark.parametrize(("work", "reason"), [(pause, "nothing of .* could be read"), (hoard, "too much memory")])
def test_who_reads_and_stands_still_or_takes_everything_is_ended(tmp_path, monkeypatch, work, reason):
    monkeypatch.setattr(apart_module, "_STILL_SECONDS", 1.0)
    before = set(children_of(os.getpid()))  # those of other tests, such as multiprocessing's resource tracker
    with pytest.raises(SettingError, match=reason), apart(tmp_path, work) as answer:
        answer.read()
    assert set(children_of(os.getpid())) <= before


WAITS = """
import signal, sys, time
from pathlib import Path
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which nohup has ignored
signal.signal(signal.SIGINT, signal.default_int_handler)
from heinfer_server.operator import stored
save = stored._save
def slowly(folder, answer):
    save(folder, answer)
    answer.flush()
    print("reads", flush=True)
    time.sleep(1000)
stored._save = slowly
stored.back_up(Path(sys.argv[1]), None, Path(sys.argv[2]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_a_backup_that_is_told_to_end_leaves_no_process_and_no_part_of_a_file(tmp_path, number):
    folder, target = tmp_path / "keys", tmp_path / "saved.tar"
    store(folder).close()
    words = [sys.executable, "-c", WAITS, str(folder), str(target)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "reads\n"
        (reader,) = children_of(process.pid)
        process.send_signal(number)
        process.wait(20)
    wait_until(lambda: not alive(reader), 20)
    assert target.exists() == (number == signal.SIGKILL)


AS_ANOTHER = """
import os, sys
from pathlib import Path
from heinfer_server.operator.stored import stored_sets
os.setuid(1234)
stored_sets(Path(sys.argv[1]))
"""


@needs_root
def test_another_user_is_told_whose_folder_it_is(place):
    place.chmod(0o755)
    (place / "theirs").chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", AS_ANOTHER, str(place / "theirs")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "belongs to user 0: run this as that user, or as root" in done.stderr
