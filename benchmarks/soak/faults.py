"""What is done to the service. Every fault is real, and over when its function returns."""

from __future__ import annotations

import os
import random
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from time import monotonic, sleep
from urllib.parse import urlencode

import httpx

from benchmarks.soak.callers import Caller
from benchmarks.soak.hostile import ENDS, FAILS, marked
from benchmarks.soak.key_disk import KeyDisk
from benchmarks.soak.service import Service
from heinfer.ckks.secret import SecretSide
from heinfer.errors import ServiceError
from heinfer.formats.bundle import Bundle
from heinfer.zoo import digits
from heinfer_client.codec import Codec
from heinfer_server.models import digest_of

_CROWD = 16
_FULL = 600
_SLOW_SECONDS = 8.0
_STARTED = 3.0
_WAIT_SECONDS = 60.0
_REFUSED_ABOVE, _REFUSED_BELOW = 400, 500


@dataclass(frozen=True, eq=False)
class Scene:
    """What faults work on.

    Attributes:
        service: under test.
        disk: that it keeps keys on.
        model: that is served.
        api_key: of a tenant with registered keys.
        newcomer: makes a caller with new keys.
        chance: seeded.
    """

    service: Service
    disk: KeyDisk
    model: Bundle
    api_key: str
    newcomer: Callable[[], Caller]
    chance: random.Random

    def request(self) -> tuple[bytes, bytes]:
        """Head and body of a good inference, of a secret key that nobody keeps."""
        headers = {"Authorization": f"Bearer {self.api_key}"}
        listed = httpx.get(f"{self.service.url}/keys", headers=headers, timeout=30).json()["keys"]
        body = inputs_of(self.model)
        manifest = self.model.manifest
        query = {"model": manifest.name, "manifest": digest_of(manifest), "keys": listed[-1]["keys"]}
        head = (
            f"POST /infer?{urlencode(query)} HTTP/1.1\r\n"
            f"Host: 127.0.0.1\r\nAuthorization: {headers['Authorization']}\r\n"
            f"Content-Type: application/octet-stream\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode(), body

    def connect(self) -> socket.socket:
        """A connection of one's own."""
        return socket.create_connection(("127.0.0.1", self.service.port), timeout=30)


def inputs_of(model: Bundle) -> bytes:
    """A frame of a digit, of a secret key that nobody keeps."""
    codec = Codec(model.manifest)
    return codec.encrypt(SecretSide.generate(codec.parameters), [codec.read_image(digits().images[0])])


def kill_a_worker(scene: Scene) -> str:
    """kill -9, busy or not, be it while it starts."""
    return _to_a_worker(scene, signal.SIGKILL, age=0)


def stop_a_worker(scene: Scene) -> str:
    """A worker that hangs: it is replaced when an evaluation runs out of time.

    Not while it starts: it has not asked the kernel yet to end with the service.
    """
    return _to_a_worker(scene, signal.SIGSTOP, age=_STARTED)


def _to_a_worker(scene: Scene, what: signal.Signals, age: float) -> str:
    end = monotonic() + _WAIT_SECONDS
    while not (workers := scene.service.workers(age)):
        if monotonic() > end:
            return "no worker was there"
        sleep(0.2)
    with suppress(ProcessLookupError):
        os.kill(scene.chance.choice(workers), what)
    return "done"


def slow_clients(scene: Scene) -> str:
    """Bodies that come a few bytes at a time, and never end."""
    head, body = scene.request()
    with ExitStack() as stack:
        crowd = [stack.enter_context(scene.connect()) for _ in range(_CROWD)]
        for one in crowd:
            one.sendall(head)
        for beat in range(int(_SLOW_SECONDS * 4)):
            for one in crowd:
                with suppress(OSError):  # the service may cut it
                    one.sendall(body[64 * beat : 64 * beat + 64])
            sleep(0.25)
    return "done"


def vanishing_clients(scene: Scene) -> str:
    """Connections that end in the middle of a body, or right after it."""
    head, body = scene.request()
    for number in range(_CROWD):
        with scene.connect() as one:
            one.sendall(head + body[: scene.chance.randrange(len(body))] if number % 2 else head + body)
    return "done"


def hostile_bodies(scene: Scene) -> str:
    """Good frames with bytes changed, cut or added: each must be refused, or be a ciphertext of nothing."""
    head, body = scene.request()
    refused = 0
    for _ in range(_CROWD):
        changed = bytearray(body)
        for _ in range(scene.chance.choice([1, 8, 64])):
            changed[scene.chance.randrange(256)] = scene.chance.randrange(256)
        with scene.connect() as one:
            one.sendall(head + bytes(changed))
            status = int(one.recv(1 << 16).split(b" ", 2)[1])
            refused += _REFUSED_ABOVE <= status < _REFUSED_BELOW
            if status >= _REFUSED_BELOW:
                return f"answered {status}"
    return "done" if refused else "none was refused"


def hostile_worker(scene: Scene) -> str:
    """Code that has taken a worker over tries everything, on the service and on the other worker."""
    head, body = scene.request()
    for attack in (scene.chance.choice(FAILS), scene.chance.choice(ENDS)):
        workers = scene.service.workers()
        if len(workers) < 2:
            return "only one worker was there"
        said = marked(scene.model, body, attack, scene.service.pid, workers)
        with scene.connect() as one:
            one.settimeout(_WAIT_SECONDS)
            one.sendall(head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + said)
            answer = b"".join(iter(lambda: one.recv(1 << 16), b""))
        status = int(answer.split(b" ", 2)[1])
        is_lost = b"worker-failed" in answer or b"evaluation-timeout" in answer  # of what is too short to be a reply
        if attack in ENDS and not is_lost:
            return f"{attack} was answered {status}"
        if attack in FAILS and (b'"detail"' not in answer or b" done" in answer):
            return f"{attack} was answered {answer[-1000:].decode(errors='replace')}"
    return "done"


def full_metrics_port(scene: Scene) -> str:
    """More connections to it than the service may have, each with half a request; the public port answers meanwhile."""
    with ExitStack() as stack:
        for _ in range(_FULL):
            with suppress(OSError):
                crowd = stack.enter_context(socket.create_connection(("127.0.0.1", scene.service.metrics_port), 5))
                crowd.sendall(b"GET /metrics HTTP/1.1\r\nHost: ")
        for _ in range(int(_SLOW_SECONDS)):
            if not scene.service.is_ready():
                return "the public port did not answer"
            sleep(1)
    return "done"


def reload(scene: Scene) -> str:
    """SIGHUP, several times."""
    for _ in range(5):
        scene.service.tell(signal.SIGHUP)
        sleep(0.2)
    return "done"


def jumping_clock(scene: Scene) -> str:
    """The machine's clock is 40 days ahead for a while, and then 40 behind."""
    if scene.service.clock is None:
        return "not run: this machine has no C compiler"
    for days in (40, -40, 0):
        scene.service.clock.set(days)
        sleep(2)
    return "done"


def full_disk(scene: Scene) -> str:
    """Not a byte left for keys: new ones are refused by code, registered ones go on."""
    if not scene.disk.is_own:
        return "not run: this machine allows no file system of one's own"
    scene.disk.fill()
    try:
        scene.newcomer().client.prepare()
        outcome = "new keys were taken"
    except ServiceError as error:
        outcome = "done" if error.server_code == "storage-failed" else f"answered {error.server_code}"
    finally:
        sleep(3)
        scene.disk.empty()
    return outcome


def restart(scene: Scene) -> str:
    """SIGTERM, and a new start."""
    scene.service.end(signal.SIGTERM)
    scene.service.start()
    return "done"


def restart_at_another_time(scene: Scene) -> str:
    """SIGTERM, and a start with a clock that is 40 days off, which is put right after a while."""
    if scene.service.clock is None:
        return "not run: this machine has no C compiler"
    scene.service.end(signal.SIGTERM)
    scene.service.clock.set(scene.chance.choice([40, -40]))
    scene.service.start()
    sleep(2)
    scene.service.clock.set(0)
    return "done"


def crash(scene: Scene) -> str:
    """kill -9 of the process that speaks HTTP, and a new start."""
    scene.service.end(signal.SIGKILL)
    scene.service.start()
    return "done"


FAULTS = (
    kill_a_worker,
    stop_a_worker,
    slow_clients,
    vanishing_clients,
    hostile_bodies,
    hostile_worker,
    full_metrics_port,
    reload,
    jumping_clock,
    full_disk,
)
LAST = (restart, restart_at_another_time, crash)
