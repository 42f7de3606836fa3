"""A client that is closed when the interpreter ends: it says nothing, and keeps nobody waiting."""

import subprocess
import sys

import pytest
from server_process import server_process
from tiny_model import tiny_bundle

WAYS = {
    "finalizer": "class Holder:\n    def __del__(self):\n        client.close()\nholder = Holder()",
    "generator": "def f():\n    try:\n        yield\n    finally:\n        client.close()\nheld = f()\nnext(held)",
}


@pytest.mark.parametrize("way", WAYS)
def test_a_client_that_closes_at_the_end_of_the_interpreter_does_not_hang(tmp_path, way):
    with server_process(tmp_path, [tiny_bundle()]) as server:
        script = (
            "import sys\nfrom heinfer_client import Client\n"
            f"client = Client({server.url!r}, model='tiny', progress=False)\nclient.prepare()\n{WAYS[way]}\n"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
