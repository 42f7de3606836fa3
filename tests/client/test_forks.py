"""A client in processes that have been forked, with a real service: programs of their own, as a user writes them."""

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from server_process import ServerProcess, server_process
from tiny_model import tiny_bundle

pytestmark = pytest.mark.slow

SECONDS = 120.0

PRELUDE = """
import asyncio, os, sys, threading, time
import numpy as np
from heinfer.errors import HeinferError, SettingError
from heinfer_client import AsyncClient, Client
from tiny_model import LABELS, cleartext_scores

URL = sys.argv[1]
IMAGES = [np.random.default_rng(seed).random((4, 4)) for seed in range(8)]

def wrong(client, count=16):
    return sum(
        bool(np.abs(client.encrypt_and_predict(image).scores - cleartext_scores(image)).max() > 0.05)
        for image in (IMAGES * 2)[:count]
    )

def forked(work):
    '''Have a child do it; its exit status is what that returns.'''
    child = os.fork()
    if child:
        return child
    status = 99
    try:
        status = work()
    except BaseException:
        import traceback; traceback.print_exc()
    finally:
        os._exit(status)

def statuses(children):
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]

client = Client(URL, model="tiny", progress=False)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with server_process(tmp_path_factory.mktemp("server"), [tiny_bundle()], workers=2) as server:
        yield server


def registrations(server: ServerProcess) -> int:
    lines = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
    return sum(line.get("route") == "/models/{model}/keys" for line in lines)


def stored(server: ServerProcess) -> int:
    return len(httpx.get(f"{server.url}/keys").json()["keys"])


def run(server: ServerProcess, program: str, prelude: str = PRELUDE) -> str:
    """What a program prints that ends well."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", prelude + program, server.url],
        cwd=Path(__file__).parents[1] / "support",
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Exception ignored" not in done.stderr
    return done.stdout


def test_parent_and_children_predict_at_once_and_right(server):
    before = registrations(server)
    assert (
        run(
            server,
            """
client.prepare()
wrong(client, 1)  # a connection is open
children = [forked(lambda: wrong(client)) for _ in range(3)]
print(wrong(client), statuses(children))
""",
        )
        == "0 [0, 0, 0]\n"
    )
    assert registrations(server) == before + 1


def test_a_child_of_a_fresh_client_makes_its_own_keys(server):
    assert (
        run(
            server,
            "children = [forked(lambda: wrong(client)) for _ in range(2)]\nprint(wrong(client), statuses(children))",
        )
        == "0 [0, 0]\n"
    )


def test_a_prediction_imports_nothing(server):
    """A module that one thread imports while another forks is locked in the child for ever."""
    program = """
import sys
from PIL import Image
import numpy as np
import heinfer_client.session
from heinfer_client import Client
image = Image.fromarray(np.zeros((4, 4), dtype=np.uint8))
client = Client(sys.argv[1], model="tiny", progress=False)
before = set(sys.modules)
client.encrypt_and_predict_many([image, np.zeros((4, 4))])
heinfer_client.session.LONG_SECONDS = -1.0  # as a job
client.encrypt_and_predict(image)
print(sorted(set(sys.modules) - before))
"""
    assert run(server, program, prelude="") == "[]\n"


def test_who_forks_while_threads_predict_waits_for_nobody(server):
    assert (
        run(
            server,
            """
is_over = False
mistakes = []

def go_on(client):
    while not is_over:
        mistakes.append(wrong(client, 1))

fresh = Client(URL, model="tiny", progress=False)
threads = [threading.Thread(target=go_on, args=(each,)) for each in (client, client, client, fresh)]
for thread in threads:
    thread.start()
children = []
for _ in range(5):
    children.append(forked(lambda: wrong(client, 2) + wrong(fresh, 1)))
    time.sleep(0.05)
print(statuses(children))
is_over = True
for thread in threads:
    thread.join()
print(sum(mistakes))
""",
        )
        == f"{[0] * 5}\n0\n"
    )


def test_a_child_that_ends_or_closes_leaves_its_parent_alone(server):
    assert (
        run(
            server,
            """
with client:
    wrong(client, 1)
    children = [forked(lambda: client.close() or 0), forked(lambda: 0)]
    print(statuses(children), wrong(client, 1))
    child = forked(lambda: wrong(client, 1) or client.close() or 0)
    print(statuses([child]), wrong(client, 1))
client.close()

def closed():
    try:
        wrong(client)
    except SettingError as error:
        return 7 if "closed" in str(error) else 8

print(statuses([forked(closed)]))
""",
        )
        == "[0, 0] 0\n[0] 0\n[7]\n"
    )


def test_children_encrypt_with_randomness_of_their_own(server):
    assert (
        run(
            server,
            """
import hashlib
client.prepare()
session = client._session
reader, writer = os.pipe()

def encrypt():
    body = session.codec.encrypt(session._keys.secret, [session.codec.read_image(IMAGES[0])])
    key = session._keys.secret.galois_key(1)
    os.write(writer, hashlib.sha256(body).digest() + hashlib.sha256(key).digest())
    return 0

statuses([forked(encrypt) for _ in range(4)])
encrypt()
os.close(writer)
read = os.fdopen(reader, "rb").read()
print(len({read[start : start + 32] for start in range(0, len(read), 32)}))
""",
        )
        == "10\n"
    )


def test_an_asynchronous_client_stays_in_its_process_and_says_so(server):
    assert (
        run(
            server,
            """
twin = AsyncClient(URL, model="tiny", progress=False)

async def use():
    return (await twin.encrypt_and_predict(IMAGES[0])).label == LABELS[int(cleartext_scores(IMAGES[0]).argmax())]

def in_a_loop():
    try:
        return 0 if asyncio.run(use()) else 1
    except SettingError as error:
        return 7 if "process" in str(error) else 8

print(statuses([forked(in_a_loop), forked(in_a_loop)]))  # nobody has used it yet

async def use_and_fork():
    await use()
    child = forked(in_a_loop)
    return statuses([child]), await use()

print(*asyncio.run(use_and_fork()))
""",
        )
        == "[0, 0]\n[7] True\n"
    )


def test_a_transport_of_ones_own_is_not_shared_by_two_processes(server):
    assert (
        run(
            server,
            """
import httpx
client = Client(URL, model="tiny", progress=False, transport=httpx.HTTPTransport())
wrong(client, 1)

def use():
    try:
        wrong(client)
    except SettingError as error:
        return 7 if "another client here" in str(error) else 8

print(statuses([forked(use)]), wrong(client, 1))
""",
        )
        == "[7] 0\n"
    )


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_who_hands_a_client_to_another_process_is_told_what_to_do(server, method):
    assert (
        run(
            server,
            f"""
import multiprocessing, pickle
for kind in (Client, AsyncClient):
    one = kind(URL, model="tiny", progress=False)
    for way in (
        lambda: multiprocessing.get_context("{method}").Process(target=print, args=(one,)).start(),
        lambda: pickle.dumps(one),
        lambda: __import__("copy").copy(one),
        lambda: __import__("copy").deepcopy(one),
    ):
        try:
            way()
        except TypeError as error:
            print("make one in each process" in str(error))
""",
        )
        == "True\n" * 8
    )


def test_children_that_close_leave_the_keys_to_their_parent(server):
    before, kept = registrations(server), stored(server)
    assert (
        run(
            server,
            """
with client:
    wrong(client, 1)

    def use_and_close():
        with client:
            return wrong(client, 2)

    print(statuses([forked(use_and_close), forked(use_and_close), forked(lambda: client.close() or 0)]))
    print(wrong(client, 2), statuses([forked(lambda: client.__exit__(None, None, None) or 0)]), wrong(client, 2))
""",
        )
        == "[0, 0, 0]\n0 [0] 0\n"
    )
    assert registrations(server) == before + 1
    assert stored(server) == kept


def test_so_do_those_of_an_asynchronous_one(server):
    before, kept = registrations(server), stored(server)
    assert (
        run(
            server,
            """
twin = AsyncClient(URL, model="tiny", progress=False)

def leave():
    asyncio.events._set_running_loop(None)  # the parent's, which was running when this child was forked
    asyncio.run(twin.aclose())
    return 0

async def use():
    async with twin:
        await twin.encrypt_and_predict(IMAGES[0])
        print(statuses([forked(leave) for _ in range(4)]))
        await twin.encrypt_and_predict(IMAGES[0])

asyncio.run(use())
""",
        )
        == "[0, 0, 0, 0]\n"
    )
    assert registrations(server) == before + 1
    assert stored(server) == kept


def test_a_child_that_registers_itself_forgets_its_own_keys_only(server):
    before, kept = registrations(server), stored(server)
    assert (
        run(
            server,
            """
import httpx
client.prepare()

def use_and_close():
    httpx.delete(f"{URL}/keys/{client._session._ready.key_id}")  # as if the service had dropped them
    with client:
        return wrong(client, 2)

print(statuses([forked(use_and_close)]))
with client:
    print(wrong(client, 2))
""",
        )
        == "[0]\n0\n"
    )
    assert registrations(server) == before + 3
    assert stored(server) == kept


def test_a_child_that_rotates_leaves_its_parents_keys_alone(server):
    before, kept = registrations(server), stored(server)
    assert (
        run(
            server,
            """
with client:
    wrong(client, 1)

    def rotate():
        with client:
            client.rotate()
            return wrong(client, 2)

    print(statuses([forked(rotate), forked(rotate)]), wrong(client, 2))
""",
        )
        == "[0, 0] 0\n"
    )
    assert registrations(server) == before + 3
    assert stored(server) == kept
