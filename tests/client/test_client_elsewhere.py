"""A client on macOS or Windows, as far as Python can tell, and a service on Linux."""

import numpy as np
import pytest
from other_systems import SYSTEMS, run_on
from server_process import server_process
from tiny_model import LABELS, cleartext_scores, tiny_bundle

pytestmark = pytest.mark.slow

IMAGE = np.random.default_rng(7).random((4, 4))

CALL = """
import asyncio, sys
import numpy as np
from heinfer_client import AsyncClient, Client

image = np.load("image.npy")
for _ in range(2):  # the second time with the keys of the file
    with Client(sys.argv[1], model="tiny", keys_path="secret.key", keys_passphrase="horse", progress=False) as client:
        print(client.encrypt_and_predict(image).label)

async def call():
    async with AsyncClient(sys.argv[1], model="tiny", progress=False) as client:
        print((await client.encrypt_and_predict(image)).label)

asyncio.run(call())
"""

COMMAND = "from heinfer_cli import main; import sys; sys.argv = ['heinfer', *sys.argv[1:]]; main()\n"


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with server_process(tmp_path_factory.mktemp("server"), [tiny_bundle()]) as server:
        yield server.url


@pytest.fixture
def folder(tmp_path):
    np.save(tmp_path / "image.npy", IMAGE)
    return tmp_path


LABEL = LABELS[int(cleartext_scores(IMAGE).argmax())]


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_client_calls(system, url, folder):
    done = run_on(system, CALL, folder, url)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [LABEL] * 3


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_command_line_predicts(system, url, folder):
    done = run_on(system, COMMAND, folder, "predict", url, "image.npy", "--model", "tiny")
    assert done.returncode == 0, done.stderr
    assert LABEL in done.stdout
