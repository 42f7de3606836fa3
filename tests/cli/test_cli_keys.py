"""heinfer keys, and predict with protected keys, as a user meets them."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from bundle_files import save_all
from keyrings import InMemory, keyring_in_memory
from test_cli import run
from tiny_model import tiny_bundle

from heinfer.ckks import protection, secret_file
from heinfer.ckks.protection import Kind, Passphrase
from heinfer.ckks.secret import SecretSide
from heinfer_cli.local_server import local_server

MODEL = tiny_bundle()


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> Iterator[str]:
    (path,) = save_all(tmp_path_factory.mktemp("served"), [MODEL])
    with local_server(path) as url:
        yield url


@pytest.fixture(autouse=True)
def in_haste(monkeypatch) -> None:
    monkeypatch.setattr(protection, "WORK", protection.WORKS.start)
    monkeypatch.delenv("HEINFER_KEYS_PASSPHRASE", raising=False)


@pytest.fixture
def ring() -> Iterator[InMemory]:
    with keyring_in_memory() as ring:
        yield ring


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "secret.key"


@pytest.fixture
def image(tmp_path) -> str:
    np.save(tmp_path / "image.npy", np.linspace(0, 1, 16).reshape(4, 4))
    return str(tmp_path / "image.npy")


@pytest.fixture
def passphrase(tmp_path) -> str:
    (tmp_path / "passphrase").write_text("correct horse\n")
    return str(tmp_path / "passphrase")


def kept(url: str) -> int:
    return len(httpx.get(f"{url}/keys").json()["keys"])


def predict(url: str, image: str, path: Path, *options: str) -> tuple[int, str, str]:
    return run("predict", url, image, "--model", "tiny", "--keys", str(path), *options)


def make(path: Path) -> None:
    SecretSide.generate(MODEL.manifest.to_parameters()).save(path)


# show ------------------------------------------------------------------------------------------


def test_show_says_all_but_the_secret_and_the_id(url, image, path):
    assert predict(url, image, path)[0] == 0
    status, shown, _ = run("keys", "show", str(path))
    assert status == 0
    for words in ("N = 4096, 106.0 bits", "0 days ago", "nothing but its mode", url, "tiny"):
        assert words in shown
    key_id = re.search(r'"keys":"([^"]+)"', path.with_name("secret.key.registration").read_text())[1]
    assert key_id not in shown
    assert key_id in run("keys", "show", str(path), "--id")[1]
    clear = secret_file.read(path).key(None)
    assert clear[64:72].hex() not in shown


def test_show_needs_no_passphrase_and_knows_former_files(path, passphrase):
    make(path)
    assert run("keys", "protect", str(path), "--passphrase-file", passphrase)[0] == 0
    status, shown, _ = run("keys", "show", str(path))
    assert status == 0
    assert re.search(r"protected by +a passphrase", shown)
    assert "nowhere, or it is not known where" in shown
    assert re.search(r"made +20\d\d-", shown)


def test_show_needs_nothing_that_talks_to_a_service(path):
    make(path)
    without = "import sys; sys.modules['httpx'] = None; from heinfer_cli.main import main; main()"
    words = [sys.executable, "-c", without, "keys", "show", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "N = 4096" in done.stdout
    words[-2] = "protect"
    done = subprocess.run([*words, "--keyring"], capture_output=True, text=True, timeout=60, check=False)
    assert "httpx" not in done.stderr


def test_a_mark_at_the_beginning_of_a_passphrase_file_is_none_of_the_passphrase(path, passphrase, tmp_path):
    make(path)
    marked = tmp_path / "marked"
    marked.write_bytes(b"\xef\xbb\xbf" + Path(passphrase).read_bytes().rstrip() + b"\r\n")
    assert run("keys", "protect", str(path), "--passphrase-file", str(marked))[0] == 0
    assert secret_file.read(path).key(Passphrase(Path(passphrase).read_text().strip()))


@pytest.mark.parametrize(
    "verb", [["show"], ["protect"], ["rotate", "http://127.0.0.1:1"], ["delete", "http://127.0.0.1:1"]]
)
def test_what_is_no_file_of_keys_is_named(verb, path):
    status, _, err = run("keys", *verb, str(path))
    assert (status, err.startswith("error bad-setting: ")) == (2, True)
    assert "cannot be read: No such file" in err
    path.write_text("something else, which stays as it is")
    path.chmod(0o600)
    status, _, err = run("keys", *verb, str(path))
    assert (status, err.startswith("error bad-format: ")) == (2, True)
    assert path.read_text() == "something else, which stays as it is"


# protect ---------------------------------------------------------------------------------------


def test_protect_encrypts_and_predict_opens(url, image, path, passphrase, monkeypatch):
    assert predict(url, image, path)[0] == 0
    before = kept(url)
    status, shown, _ = run("keys", "protect", str(path), "--passphrase-file", passphrase)
    assert status == 0
    assert "copies of it that were made before are not" in shown
    assert secret_file.read(path).seal.kind is Kind.PASSPHRASE
    assert predict(url, image, path, "--passphrase-file", passphrase)[0] == 0
    status, _, err = predict(url, image, path)
    assert (status, err.startswith("error passphrase-required: ")) == (2, True)
    assert "HEINFER_KEYS_PASSPHRASE" in err
    monkeypatch.setenv("HEINFER_KEYS_PASSPHRASE", "correct horse")
    assert predict(url, image, path)[0] == 0
    monkeypatch.setenv("HEINFER_KEYS_PASSPHRASE", "wrong")
    status, _, err = predict(url, image, path)
    assert (status, err.startswith("error wrong-passphrase: ")) == (2, True)
    assert kept(url) == before


def test_the_keyring_does_as_well(url, image, path, ring):
    assert predict(url, image, path, "--keyring")[0] == 0
    assert len(ring.entries) == 1
    assert secret_file.read(path).seal.kind is Kind.KEYRING
    assert predict(url, image, path, "--keyring")[0] == 0
    other = path.with_name("other.key")
    make(other)
    assert run("keys", "protect", str(other), "--keyring")[0] == 0
    assert len(ring.entries) == 2
    ring.is_locked = True
    status, _, err = predict(url, image, path, "--keyring")
    assert (status, err.startswith("error keyring-failed: ")) == (2, True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "give a passphrase: --passphrase-file FILE"),
        (("--passphrase-file", "missing"), "the passphrase cannot be read: No such file"),
        (("--passphrase-file", "missing", "--keyring"), "a file is protected by one of them"),
    ],
)
def test_protect_says_what_it_lacks_and_leaves_the_file(path, options, words):
    make(path)
    before = path.read_bytes()
    status, _, err = run("keys", "protect", str(path), *options)
    assert (status, err.startswith("error bad-setting: ")) == (2, True)
    assert words in err
    assert path.read_bytes() == before


def test_protect_does_not_protect_twice(path, passphrase):
    make(path)
    assert run("keys", "protect", str(path), "--passphrase-file", passphrase)[0] == 0
    status, _, err = run("keys", "protect", str(path), "--passphrase-file", passphrase)
    assert (status, err.startswith("error key-protection: ")) == (2, True)


def test_a_file_in_clear_is_not_opened_as_a_protected_one(url, image, path, passphrase):
    make(path)
    status, _, err = predict(url, image, path, "--passphrase-file", passphrase)
    assert (status, err.startswith("error key-protection: ")) == (2, True)
    assert f"heinfer keys protect {path}" in err


def test_a_passphrase_without_a_file_of_keys_is_refused(image, passphrase):
    for options in (("--passphrase-file", passphrase), ("--keyring",)):
        status, _, err = run("predict", "http://127.0.0.1:1", image, *options)
        assert (status, "give keys_path" in err) == (2, True)


TERMINAL = """
import os, pty, sys
typed, *arguments = sys.argv[1:]
child, terminal = pty.fork()
if child == 0:
    os.execv(sys.executable, [sys.executable, "-m", "heinfer", *arguments])
shown = b""
asked = 0
while True:
    try:
        shown += os.read(terminal, 1024)
    except OSError:  # it is over
        break
    if shown.count(b": ") > asked:
        asked += 1
        os.write(terminal, typed.encode() + b"\\n")
os.waitpid(child, 0)
print(shown.decode())
"""


def on_a_terminal(typed: str, *arguments: str) -> str:
    """What a command shows on a terminal of its own, at which something is typed whenever it asks."""
    done = subprocess.run(
        [sys.executable, "-c", TERMINAL, typed, *arguments], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout


def test_a_terminal_is_asked_and_shows_nothing_of_it(url, image, path):
    make(path)
    shown = on_a_terminal("correct horse", "keys", "protect", str(path))
    assert "is protected" in shown
    SecretSide.load(path, Passphrase("correct horse"))
    shown += on_a_terminal("correct horse", "predict", url, image, "--model", "tiny", "--keys", str(path))
    assert "image.npy" in shown
    assert shown.count("assphrase") == 2
    assert "correct" not in shown


# rotate ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_protected", [True, False])
def test_rotate_replaces_key_and_registration(url, image, path, passphrase, is_protected):
    options = ("--passphrase-file", passphrase) if is_protected else ()
    assert predict(url, image, path, *options)[0] == 0
    before, former = kept(url), path.read_bytes()
    id_before = run("keys", "show", str(path), "--id")[1].split()[-1]
    status, shown, err = run("keys", "rotate", url, str(path), *options)
    assert (status, err) == (0, "")
    assert "holds a new secret key, which is registered" in shown
    assert path.read_bytes() != former
    assert kept(url) == before
    assert run("keys", "show", str(path), "--id")[1].split()[-1] != id_before
    assert predict(url, image, path, *options)[0] == 0
    assert kept(url) == before


def test_rotate_asks_for_what_it_cannot_know(url, path):
    make(path)
    status, _, err = run("keys", "rotate", url, str(path))
    assert (status, "give --model NAME" in err) == (2, True)
    assert run("keys", "rotate", url, str(path), "--model", "tiny")[0] == 0


def test_rotate_without_a_service_leaves_the_file(path):
    make(path)
    before = path.read_bytes()
    status, _, err = run("keys", "rotate", "http://127.0.0.1:1", str(path), "--model", "tiny")
    assert (status, err.startswith("error service-unavailable: ")) == (2, True)
    assert path.read_bytes() == before


# delete ----------------------------------------------------------------------------------------


def test_delete_deletes_there_and_here(url, image, path, ring):
    before = kept(url)
    assert predict(url, image, path, "--keyring")[0] == 0
    assert kept(url) == before + 1
    status, shown, err = run("keys", "delete", url, str(path))
    assert (status, err) == (0, "")
    assert "the service has forgotten the evaluation keys, and" in shown
    assert kept(url) == before
    assert [file.name for file in path.parent.iterdir()] == ["image.npy"]
    assert ring.entries == {}


def test_delete_of_keys_that_the_service_has_dropped_already(url, image, path):
    assert predict(url, image, path)[0] == 0
    key_id = run("keys", "show", str(path), "--id")[1].split()[-1]
    httpx.delete(f"{url}/keys/{key_id}")
    assert run("keys", "delete", url, str(path))[0] == 0
    assert not path.exists()


def test_delete_without_the_service_says_what_is_left(image, path, tmp_path):
    (bundle,) = save_all(tmp_path / "served", [MODEL]) if (tmp_path / "served").mkdir() is None else ()
    with local_server(bundle) as url:
        assert predict(url, image, path)[0] == 0
        status, _, err = run("keys", "delete", "http://127.0.0.1:1", str(path))
        assert (status, f"registered at {url}, not at http://127.0.0.1:1" in err) == (2, True)
    status, _, err = run("keys", "delete", url, str(path))
    assert (status, err.startswith("error service-unavailable: ")) == (2, True)
    assert f"nothing is deleted: {path} is still here, and its evaluation keys are registered at the service" in err
    assert path.exists()
    assert path.with_name("secret.key.registration").exists()


def test_delete_of_keys_that_are_registered_nowhere(path):
    make(path)
    status, shown, _ = run("keys", "delete", "http://127.0.0.1:1", str(path))
    assert status == 0
    assert "where its evaluation keys are registered, if anywhere, is not known" in shown
    assert not path.exists()
