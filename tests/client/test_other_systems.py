"""What runs on macOS and Windows: compiler and client; the service says that it does not."""

import json
import stat

import pytest
from other_systems import SYSTEMS, run_on

from heinfer.ckks.parameters import Parameters
from heinfer.ckks.secret import SecretSide

COMMAND = "from heinfer_cli import main; import sys; sys.argv = ['heinfer', *sys.argv[1:]]; main()\n"


@pytest.fixture(params=SYSTEMS)
def system(request) -> str:
    return request.param


SEAL = """
import json, tempfile
from pathlib import Path
import numpy as np
from heinfer.ckks.parameters import Parameters
from heinfer.ckks.secret import SecretSide
tempfile.tempdir = str(Path("scratch").resolve())
secret = SecretSide.generate(Parameters.create(4096, [30, 24], 30))
fresh = secret.encrypt(np.full(2048, 0.5), 1, 2.0**20)
print(json.dumps([len(fresh), len(secret.galois_key(1)), float(secret.decrypt(fresh).real.max())]))
"""


def test_keys_are_made_and_images_encrypted(system, tmp_path):
    (tmp_path / "scratch").mkdir()
    done = run_on(system, SEAL, tmp_path)
    assert done.returncode == 0, done.stderr
    _, _, decrypted = json.loads(done.stdout)
    assert decrypted == pytest.approx(0.5, abs=0.01)
    assert not list((tmp_path / "scratch").iterdir())  # nothing of a key is left


@pytest.mark.parametrize("module", ["heinfer_client", "heinfer_cli.main", "heinfer.compiler.compile", "heinfer.zoo"])
def test_what_runs_there_is_imported(system, module, tmp_path):
    done = run_on(system, f"import {module}", tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "words",
    [("predict", "--help"), ("plan", "mnist-ffconv"), ("--version",), ("compile", "--help"), ("keys", "--help")],
    ids=lambda words: words[0],
)
def test_commands_that_run_there_run(system, words, tmp_path):
    done = run_on(system, COMMAND, tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("serve", "--no-auth", "mnist-ffconv"),
        ("demo",),
        ("tenant", "add", "lab", "--tenants", "tenants.json"),
        ("tenant", "list", "--tenants", "tenants.json"),
        ("backup", "b.tar", "--key-folder", "."),
        ("confirm-clock", "--key-folder", "."),
    ],
    ids=lambda words: "-".join(words[:2]),
)
def test_commands_of_the_service_say_where_it_runs(system, words, tmp_path):
    done = run_on(system, COMMAND, tmp_path, *words)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error unsupported-system: the service runs on Linux, and this system is ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("module", ["heinfer_server", "heinfer_server.main", "heinfer_server.settings"])
def test_the_service_is_not_imported_there(system, module, tmp_path):
    done = run_on(system, f"import {module}", tmp_path)
    assert done.stderr.splitlines()[-1].startswith("heinfer.errors.UnsupportedSystemError: the service runs on Linux")


def test_the_service_is_not_started_there(system, tmp_path):
    done = run_on(system, "import runpy; runpy.run_module('heinfer_server', run_name='__main__')", tmp_path)
    assert done.returncode != 0
    assert "the service runs on Linux" in done.stderr.splitlines()[-1]


KEPT = """
import sys
from pathlib import Path
from heinfer.ckks.parameters import Parameters
from heinfer.ckks.protection import Passphrase
from heinfer.ckks.secret import SecretSide
from heinfer.errors import KeyProtectionError
path, passphrase = Path("secret.key"), Passphrase("horse")
secret = SecretSide.generate(Parameters.create(4096, [30, 24], 30))
try:
    secret.save(path)
    print("in clear")
except KeyProtectionError as error:
    assert not path.exists()
    print(error)
secret.save(path, passphrase)
assert SecretSide.load(path, passphrase).fingerprint() == secret.fingerprint()
"""


def test_a_key_is_kept_in_clear_only_where_modes_keep_others_out(system, tmp_path):
    done = run_on(system, KEPT, tmp_path)
    assert done.returncode == 0, done.stderr
    if system == "macOS":
        assert done.stdout == "in clear\n"
        assert stat.S_IMODE((tmp_path / "secret.key").stat().st_mode) == 0o600
    else:
        assert done.stdout.startswith("secret.key: on this system the mode of a file keeps nobody out")
        assert "keys_passphrase=" in done.stdout


OPENED = """
from pathlib import Path
from heinfer.ckks import secret_file
from heinfer.ckks.protection import Passphrase
from heinfer.errors import KeyProtectionError
path = Path("secret.key")
path.chmod(0o666)  # as every file looks on Windows
try:
    secret_file.read(path).key(None)
except KeyProtectionError as error:
    print(error)
secret_file.protect(path, Passphrase("horse"))
print(len(secret_file.read(path).key(Passphrase("horse"))) > 0)
"""


def test_a_key_in_clear_that_comes_to_windows_can_be_protected_and_not_used_as_it_is(tmp_path):
    SecretSide.generate(Parameters.create(4096, [30, 24], 30)).save(tmp_path / "secret.key")
    done = run_on("Windows", OPENED, tmp_path)
    assert done.returncode == 0, done.stderr
    refused, opened = done.stdout.splitlines()
    assert "on this system the mode of a file keeps nobody out" in refused
    assert opened == "True"
