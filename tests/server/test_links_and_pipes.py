"""Files that are links or pipes, and texts that a terminal would obey."""

import os
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from keyrings import keyring_in_memory

from heinfer.ckks import protection, secret_file
from heinfer.ckks.parameters import Parameters
from heinfer.ckks.protection import Keyring, Kind, Passphrase
from heinfer.ckks.secret import SecretSide
from heinfer.errors import SettingError
from heinfer.formats.files import read_regular
from heinfer.formats.signature import public_key
from heinfer_client.keyfile import KeyFile, Registration

SECRET = SecretSide.generate(Parameters.create(4096, [28, 24, 24], 30))


@pytest.fixture
def linked(tmp_path) -> tuple[Path, Path]:
    """A link, and the file of a secret key that it leads to."""
    real, link = tmp_path / "real" / "key", tmp_path / "link"
    real.parent.mkdir()
    SECRET.save(real)
    link.symlink_to(real)
    return link, real


def test_what_a_link_leads_to_is_protected_and_the_link_stays(linked, monkeypatch):
    monkeypatch.setattr(protection, "WORK", protection.WORKS.start)
    link, real = linked
    secret_file.protect(link, Passphrase("correct horse"))
    assert link.is_symlink()
    assert secret_file.read(real).seal.kind is Kind.PASSPHRASE


def test_what_a_link_leads_to_is_removed(linked):
    link, real = linked
    KeyFile(link).save_registration(Registration(url="http://x", key_set="0", secret="0", keys="0" * 32))
    assert real.with_name("key.registration").exists()
    KeyFile(link).remove()
    assert not list(real.parent.iterdir())


def test_an_interrupt_after_a_file_is_in_place_leaves_what_opens_it(tmp_path, monkeypatch):
    path = tmp_path / "key"
    with keyring_in_memory():
        SECRET.save(path, Keyring())
        sync, done = os.fsync, []

        def second(descriptor: int) -> None:
            done.append(sync(descriptor))
            if len(done) == 2:
                raise KeyboardInterrupt

        monkeypatch.setattr(os, "fsync", second)
        with pytest.raises(KeyboardInterrupt):
            SecretSide.generate(SECRET.parameters).save(path, Keyring())
        monkeypatch.undo()
        SecretSide.load(path, Keyring())


def test_a_pipe_keeps_no_reader_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.heinfer")
    with pytest.raises(OSError, match="no regular file"):
        read_regular(tmp_path / "pipe.heinfer", 10)
    status, _, error = run("plan", str(tmp_path / "pipe.heinfer"))
    assert (status, "no regular file" in " ".join(error.split())) == (2, True)


def test_a_file_of_two_public_keys_is_refused(tmp_path):
    pytest.importorskip("cryptography")
    (tmp_path / "keys.pem").write_text(2 * "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n")
    with pytest.raises(SettingError, match="more than one key"):
        public_key(tmp_path / "keys.pem")


def test_an_empty_passphrase_in_the_environment_is_no_wish_for_none(linked, tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", np.zeros((4, 4)))
    monkeypatch.setenv("HEINFER_KEYS_PASSPHRASE", "")
    status, _, error = run("predict", "http://127.0.0.1:1", str(tmp_path / "x.npy"), "--keys", str(linked[1]))
    assert (status, "HEINFER_KEYS_PASSPHRASE is empty" in " ".join(error.split())) == (2, True)


def test_no_message_has_control_characters():
    assert "\x1b]" not in run("plan", "\x1b]0;hostile\x07.heinfer")[2]
