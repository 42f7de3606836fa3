"""`heinfer tenant` as root, in a folder of an unprivileged user who plants links, pipes and files of others there."""

import ctypes
import fcntl
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from heinfer.errors import SettingError
from heinfer_cli.main import app
from heinfer_server.admission import folder
from heinfer_server.admission.registry import TenantRegistry
from heinfer_server.admission.tenants import TenantFile

ROUNDS = 200
SERVICE = 65534
NAME = "tenants.json"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be root and to become somebody else")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder of root's that everybody may enter, with two files that are root's alone and a folder of the service."""
    with tempfile.TemporaryDirectory(prefix="heinfer-test-") as name:
        base = Path(name)
        base.chmod(0o755)
        (base / "secret").write_text("root:$6$secret\n")
        (base / "secret").chmod(0o600)
        TenantFile(base / "theirs.json").add("only-root-knows")
        (base / "private").mkdir(mode=0o700)
        (base / "service").mkdir(mode=0o700)
        os.chown(base / "service", SERVICE, SERVICE)
        yield base


def victims(base: Path) -> list[tuple[object, ...]]:
    """All that an attack must not have changed, times of reading apart."""
    there = [base / "secret", base / "theirs.json", base / "private", Path("/etc/passwd")]
    return [(names_in(base), names_in(base / "private"))] + [state(path) for path in there]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def state(path: Path) -> tuple[object, ...]:
    found = path.lstat()
    content = path.read_bytes() if stat.S_ISREG(found.st_mode) else b""
    return found.st_uid, found.st_gid, found.st_mode, content


def tenant(*words: str) -> Result:
    return CliRunner().invoke(app, ["tenant", *words])


@contextmanager
def by_the_service(act: Callable[[], None]) -> Iterator[None]:
    """A process of the service's user that does it again and again meanwhile."""
    pid = os.fork()
    if pid == 0:
        try:
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # it goes when the test goes
            os.setgroups([])
            os.setgid(SERVICE)
            os.setuid(SERVICE)
            while True:
                with suppress(OSError):
                    act()
        finally:
            os._exit(1)
    try:
        yield
        assert os.waitpid(pid, os.WNOHANG) == (0, 0), "the attack ended by itself"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


# A name that is something else -----------------------------------------------------------------


def symlink(name: str, target: str) -> Callable[[Path], None]:
    return lambda base: (base / "service" / name).symlink_to(base / target)


def hard_link(name: str, target: str) -> Callable[[Path], None]:
    """Whoever may do so where fs.protected_hardlinks is 0."""
    return lambda base: (base / "service" / name).hardlink_to(base / target)


PLANTS = {
    "lock linked": symlink(f"{NAME}.lock", "secret"),
    "lock hard-linked": hard_link(f"{NAME}.lock", "secret"),
    "lock to nowhere": symlink(f"{NAME}.lock", "private/made"),
    "temporary linked": symlink(f"{NAME}.tmp", "secret"),
    "temporary hard-linked": hard_link(f"{NAME}.tmp", "secret"),
}
REFUSED = {
    "file linked": (symlink(NAME, "theirs.json"), "is a link"),
    "file linked to nowhere": (symlink(NAME, "private/made"), "is a link"),
    "file hard-linked": (hard_link(NAME, "theirs.json"), "belongs to user 0, its folder to user 65534"),
    "file of another form hard-linked": (hard_link(NAME, "secret"), "belongs to user 0"),
    "file a pipe": (lambda base: os.mkfifo(base / "service" / NAME), "no regular file"),
    "file a folder": (lambda base: (base / "service" / NAME).mkdir(), "no regular file"),
}


@pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS)
def test_names_beside_the_file_are_not_used(place, plant):
    plant(place)
    before = victims(place)
    words = [sys.executable, "-m", "heinfer", "tenant", "add", "alice", "--tenants", str(place / "service" / NAME)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert victims(place) == before
    assert done.returncode == 0, done.stderr
    file = place / "service" / NAME
    assert (file.stat().st_uid, stat.S_IMODE(file.stat().st_mode)) == (SERVICE, 0o600)
    assert TenantRegistry(file).find(done.stdout.strip()).name == "alice"


@pytest.mark.parametrize(("plant", "cause"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("words", [("add", "alice"), ("list",), ("remove", "only-root-knows")], ids=lambda w: w[0])
def test_a_file_that_is_another_is_neither_shown_nor_written(place, plant, cause, words):
    plant(place)
    before = victims(place)
    planted = state(place / "service" / NAME)
    done = tenant(*words, "--tenants", str(place / "service" / NAME))
    assert victims(place) == before
    assert state(place / "service" / NAME) == planted
    assert done.exit_code == 2
    assert "bad-setting" in done.output
    assert cause in done.output
    if words[0] == "list":
        assert "only-root-knows" not in done.output
    assert "$6$" not in done.output


def test_a_folder_on_the_way_is_not_followed_where_others_write(place):
    (place / "service" / "there").symlink_to(place / "private")
    before = victims(place)
    done = tenant("add", "alice", "--tenants", str(place / "service" / "there" / NAME))
    assert victims(place) == before
    assert done.exit_code == 2
    assert "a link that another user may have made" in done.output


def test_a_link_of_roots_own_is_followed(place):
    (place / "link").symlink_to("service")
    (place / "round").symlink_to("round")
    TenantFile(place / "link" / NAME).add("alice")
    assert [tenant.name for tenant in TenantFile(place / "link" / ".." / "service" / NAME).tenants()] == ["alice"]
    with pytest.raises(SettingError, match="Too many levels of symbolic links"):
        TenantFile(place / "round" / NAME).add("alice")


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770])
def test_a_folder_that_others_may_write_is_refused(place, mode):
    (place / "private").chmod(mode)
    with pytest.raises(SettingError, match=r"may be written by others .*chmod go-w"):
        TenantFile(place / "private" / NAME).add("alice")
    assert not list((place / "private").iterdir())


# Whose the file is afterwards ------------------------------------------------------------------


def test_in_a_folder_of_roots_the_file_stays_whose_it_was_and_readable_to_whom_it_was(place):
    file = place / "private" / NAME
    TenantFile(file).add("alice")
    assert state(file)[:3] == (0, 0, stat.S_IFREG | 0o600)
    os.chown(file, SERVICE, SERVICE)
    file.chmod(0o4666)
    TenantFile(file).add("bob")
    assert state(file)[:3] == (SERVICE, SERVICE, stat.S_IFREG | 0o644)


def test_nothing_is_left_beside_the_file(place):
    TenantFile(place / "service" / NAME).add("alice")
    with pytest.raises(SettingError):
        TenantFile(place / "service" / NAME).add("alice")
    assert names_in(place / "service") == [NAME]


# The lock --------------------------------------------------------------------------------------

LOCK = f".{NAME}.lock"


def holds(path: Path) -> Callable[[], None]:
    """Somebody who locks what they may open, for ever."""

    def act() -> None:
        descriptor = os.open(path, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        signal.pause()

    return act


@pytest.mark.parametrize("name", [".", NAME, LOCK])
def test_who_may_read_the_folder_keeps_nobody_from_revoking(place, monkeypatch, name):
    monkeypatch.setattr(folder, "_LOCK_SECONDS", 1.0)
    (place / "private").chmod(0o755)
    file = TenantFile(place / "private" / NAME)
    file.add("alice")
    (place / "private" / NAME).chmod(0o644)
    (place / "private" / LOCK).touch(0o600)  # as one that was killed has left it
    with by_the_service(holds(place / "private" / name)):
        time.sleep(0.5)
        file.remove("alice")
    assert file.tenants() == []
    assert names_in(place / "private") == [NAME]


def test_commands_at_the_same_time_wait_for_each_other(place):
    file = TenantFile(place / "service" / NAME)
    words = [sys.executable, "-c", f"from heinfer_server.admission.tenants import *; import sys; f = {str(place)!r}"]
    words[-1] += f"; [TenantFile(Path(f) / 'service' / {NAME!r}).add(sys.argv[1] + str(n)) for n in range(20)]"
    as_service = {"user": SERVICE, "group": SERVICE, "extra_groups": []}
    who = [{}, {}, as_service] if os.access(sys.executable, os.X_OK) and _may_run(words[0], as_service) else [{}] * 3
    running = [subprocess.Popen([*words, f"t{number}-"], **rights) for number, rights in enumerate(who)]
    assert [one.wait(60) for one in running] == [0] * 3
    assert len(file.tenants()) == 60
    assert names_in(place / "service") == [NAME]


def _may_run(program: str, rights: dict[str, object]) -> bool:
    """Whether another user may run it, wherever it is installed."""
    with suppress(OSError):
        return subprocess.run([program, "-c", "import heinfer_server"], check=False, **rights).returncode == 0
    return False


def test_who_waits_too_long_hears_of_it(place, monkeypatch):
    monkeypatch.setattr(folder, "_LOCK_SECONDS", 0.2)
    file = TenantFile(place / "service" / NAME)
    said = rf"locked by another command .* remove .*{LOCK} where none runs"
    with (
        folder.in_folder(place / "service" / NAME) as held,
        held.locked(),
        pytest.raises(SettingError, match=said),
    ):
        file.add("alice")
    file.add("alice")


LOCKS = {
    "linked": symlink(LOCK, "secret"),
    "linked to nowhere": symlink(LOCK, "private/made"),
    "hard-linked": hard_link(LOCK, "secret"),
    "a pipe": lambda base: os.mkfifo(base / "service" / LOCK),
    "open to others": lambda base: (base / "service" / LOCK).touch(0o644),
}


@pytest.mark.parametrize("plant", LOCKS.values(), ids=LOCKS)
def test_what_is_no_lock_is_not_used(place, plant):
    plant(place)
    before, planted = victims(place), state(place / "service" / LOCK)
    done = tenant("add", "alice", "--tenants", str(place / "service" / NAME))
    assert (victims(place), state(place / "service" / LOCK)) == (before, planted)
    assert done.exit_code == 2
    assert "no lock that heinfer made: remove it" in " ".join(done.output.split())


# Names that change meanwhile -------------------------------------------------------------------


def swaps(base: Path) -> Callable[[], None]:
    """Everything that may be under a name, in turn, under every name that there is."""
    folder = base / "service"
    spare, linked = folder / "spare", [folder / "linked-secret", folder / "linked-theirs.json"]
    makes = (
        lambda: spare.symlink_to(base / "secret"),
        lambda: spare.symlink_to(base / "private"),
        lambda: os.mkfifo(spare),
        lambda: spare.write_text("{}"),
        lambda: linked[0].rename(spare),
        lambda: linked[1].rename(spare),
    )

    def act() -> None:
        names = {name for name in names_in(folder) if not name.startswith(("linked", "spare"))}
        for name in names | {NAME, f"{NAME}.lock", f"{NAME}.tmp", LOCK}:
            for make in makes:
                with suppress(OSError):
                    make()
                    spare.rename(folder / name)
            with suppress(OSError):
                (folder / name).unlink()

    return act


def link_anew(base: Path) -> None:
    """What the service's user does itself where fs.protected_hardlinks is 0."""
    for name in ("secret", "theirs.json"):
        with suppress(FileExistsError):
            (base / "service" / f"linked-{name}").hardlink_to(base / name)


def test_whatever_names_become_meanwhile_no_other_file_is_meant(place):
    file = str(place / "service" / NAME)
    before = victims(place)
    ends = set()
    with by_the_service(swaps(place)):
        for number in range(ROUNDS):
            link_anew(place)
            words = ("list",) if number % 4 == 3 else ("add", f"t{number}")
            done = tenant(*words, "--tenants", file)
            assert "only-root-knows" not in done.output
            assert "$6$" not in done.output
            ends.add(done.exit_code)
    assert victims(place) == before
    assert ends <= {0, 2}
