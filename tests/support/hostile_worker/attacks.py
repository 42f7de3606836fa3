"""What hostile code tries in a worker. Everything that it needs is imported before, for native code needs no files."""

# ruff: noqa: PTH104, PTH108, PTH112, PTH123, PTH208

from __future__ import annotations

import ctypes
import fcntl
import gc
import json
import mmap
import os
import pickle
import resource
import signal
import socket
import struct
import subprocess
import time
from dataclasses import dataclass, replace
from errno import errorcode
from functools import partial
from typing import Any

try:
    from heinfer_server.evaluation import messages
except ImportError:  # an older heinfer, whose replies are pickles anyhow
    messages = None

library = ctypes.CDLL(None, use_errno=True)
GIGABYTE = 1 << 30
MUCH = 4 * GIGABYTE


@dataclass
class Target:
    facts: dict[str, Any]
    front: int
    sibling: int
    evaluator: Any
    task: Any

    @property
    def others(self) -> dict[str, int]:
        return {"front": self.front, "sibling": self.sibling}


def tried(**attempts) -> str:
    """What became of each: "done", or the kind of its error."""
    return "; ".join(f"{name} {outcome(attempt)}" for name, attempt in attempts.items())


def outcome(attempt) -> str:
    try:
        attempt()
    except OSError as error:
        return errorcode.get(error.errno, "OSError")
    except Exception as error:
        return type(error).__name__
    return "done"


def call(*arguments) -> int:
    """A system call, or one of the C library's functions by its name."""
    first, *rest = arguments
    function = library[first] if isinstance(first, str) else library.syscall
    passed = rest if isinstance(first, str) else arguments
    function.restype = ctypes.c_int if isinstance(first, str) else ctypes.c_long
    result = function(*(ctypes.c_ulong(a & (2**64 - 1)) if isinstance(a, int) else a for a in passed))
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result


def read(path) -> None:
    if os.path.isdir(path):
        os.listdir(path)
    else:
        with open(path, "rb") as file:
            file.read(1)


def write(path) -> None:
    os.close(os.open(path, os.O_WRONLY))


# Files -----------------------------------------------------------------------------------------


def files(target: Target) -> str:
    paths = target.facts["paths"]
    reading = {
        f"read_{name}": lambda path=path: os.listdir(path) if path.endswith("/") else read(path)
        for name, path in paths.items()
    }
    making = {
        "make": lambda: write_new(target.facts["folder"] + "/made"),
        "remove": lambda: os.unlink(paths["tenants"]),
    }
    return tried(**reading, write_tenants=lambda: write(paths["tenants"]), **making)


def looking(target: Target) -> str:
    """Whether a name is there, and whose and how long what it names is."""
    paths = {**target.facts["paths"], "absent": target.facts["folder"] + "/absent"}
    flags = {"path": os.O_PATH, "link": os.O_PATH | os.O_NOFOLLOW, "folder": os.O_DIRECTORY}
    return tried(
        **{
            f"{kind}_{name}": lambda path=path, flag=flag: os.open(path, flag | os.O_CLOEXEC)
            for name, path in paths.items()
            for kind, flag in flags.items()
        }
    )


def write_new(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT))


def proc(target: Target) -> str:
    found = []
    for who, pid in target.others.items():
        for what in ("mem", "environ", "maps", "fd/", "root/etc/passwd", "cwd/facts"):
            path = f"/proc/{pid}/{what}"
            found.append(
                tried(**{f"{who}_{what}": lambda path=path: os.listdir(path) if path.endswith("/") else read(path)})
            )
        every = [outcome(lambda path=f"/proc/{pid}/fd/{number}": read(path)) for number in range(256)]
        found.append(f"{who}_descriptors {'done' if 'done' in every else every[0]}")
    return "; ".join(found)


def descriptors(target: Target) -> str:
    """How much is open when the keys of a request are loaded: nothing, two ends to print to, and the own socket."""
    target.evaluator._evaluate(target.task)
    gc.collect()  # what was tried before may still hold its request
    there = [
        number for number in range(1024) if outcome(lambda number=number: fcntl.fcntl(number, fcntl.F_GETFD)) == "done"
    ]
    listening = [number for number in there if outcome(lambda number=number: accept(number)) == "done"]
    return f"open {len(there)}; accepting {len(listening)}"


def accept(number: int) -> None:
    sock = socket.socket(fileno=number)
    try:
        sock.setblocking(False)
        sock.accept()
    finally:
        sock.detach()


# Processes -------------------------------------------------------------------------------------


def memory_of_others(target: Target) -> str:
    buffer = ctypes.create_string_buffer(16)
    here = struct.pack("QQ", ctypes.addressof(buffer), 16)
    there = struct.pack("QQ", target.facts["address"], 16)
    found = []
    for who, pid in target.others.items():
        attempts = {
            "attach": partial(trace, 16, pid),
            "seize": partial(trace, 0x4206, pid),
            "readv": partial(call, "process_vm_readv", pid, here, 1, there, 1, 0),
            "writev": partial(call, "process_vm_writev", pid, here, 1, there, 1, 0),
            "getfd": partial(take_descriptor, pid),
            "limits": partial(resource.prlimit, pid, resource.RLIMIT_NOFILE, (1, 1)),
            "processors": partial(os.sched_setaffinity, pid, {0}),
            "priority": partial(os.setpriority, os.PRIO_PROCESS, pid, 19),
        }
        found.append(tried(**{f"{who}_{name}": attempt for name, attempt in attempts.items()}))
    return "; ".join(found)


def trace(how: int, pid: int) -> None:
    call("ptrace", how, pid, 0, 0)
    call("ptrace", 17, pid, 0, 0)  # PTRACE_DETACH


def take_descriptor(pid: int) -> None:
    call(438, call(434, pid, 0), 3, 0)  # pidfd_open, pidfd_getfd


def signals(target: Target) -> str:
    found = []
    for who, pid in target.others.items():
        attempts = {
            "stop": partial(os.kill, pid, signal.SIGSTOP),
            "thread": partial(call, target.facts["tgkill"], pid, pid, signal.SIGSTOP),
            "descriptor": partial(signal_by_descriptor, pid),
            "owner": partial(own, pid),
            "kill": partial(os.kill, pid, signal.SIGKILL),
        }
        found.append(tried(**{f"{who}_{name}": attempt for name, attempt in attempts.items()}))
    return "; ".join(found)


def signal_by_descriptor(pid: int) -> None:
    signal.pidfd_send_signal(os.pidfd_open(pid), signal.SIGSTOP)


def own(pid: int) -> None:
    """Have a process get a signal when there is something to read."""
    pipe = own_socket()
    fcntl.fcntl(pipe, fcntl.F_SETOWN, pid)
    fcntl.fcntl(pipe, 10, signal.SIGKILL)  # F_SETSIG
    fcntl.fcntl(pipe, fcntl.F_SETFL, os.O_ASYNC)


def own_socket() -> int:
    for number in range(3, 1024):
        if outcome(lambda number=number: fcntl.fcntl(number, fcntl.F_GETFD)) == "done":
            return number
    raise LookupError


def programs(target: Target) -> str:
    return tried(
        fork=lambda: os.fork() or os._exit(0),
        clone=lambda: call(target.facts["clone"], signal.SIGCHLD, 0, 0, 0, 0) or os._exit(0),
        clone3=lambda: call(435, struct.pack("8Q", 0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0), 64) or os._exit(0),
        run=lambda: subprocess.run(["/bin/true"], check=False),
        replace=lambda: os.execv("/bin/true", ["true"]),
        spawn=lambda: os.posix_spawn("/bin/true", ["true"], {}),
    )


# Rights and network ----------------------------------------------------------------------------


def network(target: Target) -> str:
    def connect(family, address):
        with socket.socket(family) as sock:
            sock.connect(address)

    return tried(
        metrics=lambda: connect(socket.AF_INET, ("127.0.0.1", target.facts["metrics_port"])),
        public=lambda: connect(socket.AF_INET, ("127.0.0.1", target.facts["port"])),
        udp=lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close(),
        abstract=lambda: connect(socket.AF_UNIX, target.facts["abstract"]),
        netlink=lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
        pair=lambda: [end.close() for end in socket.socketpair()],
        listen=lambda: socket.create_server(("127.0.0.1", 0)).close(),
    )


def rights(target: Target) -> str:
    return tried(
        user=lambda: os.setuid(os.getuid()),
        dumpable=lambda: call("prctl", 4, 1, 0, 0, 0),
        outlive=lambda: call("prctl", 1, 0, 0, 0, 0),
        namespace=lambda: call("unshare", 0x10000000),
        rings=lambda: call(425, 8, bytes(120)),
        bpf=lambda: call(321 if target.facts["machine"] == "x86_64" else 280, 0, 0, 0),
        faults=lambda: call(323 if target.facts["machine"] == "x86_64" else 282, 1),
        events=lambda: call(298 if target.facts["machine"] == "x86_64" else 241, 0, 0, -1, -1, 0),
        secrets=lambda: call(250 if target.facts["machine"] == "x86_64" else 219, 0, 0, 0, 0),
        code=lambda: mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_EXEC),
        shared=lambda: mmap.mmap(-1, 4096),
        terminal=lambda: os.ttyname(0),
        limits=lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)),
        urgent=send_urgently,
    )


def send_urgently() -> None:
    call("send", own_socket(), b"x", 1, socket.MSG_OOB)


# What others share -----------------------------------------------------------------------------


def constants(target: Target) -> str:
    program = target.evaluator.runtimes[target.task.manifest]
    address = program._handle.encoded.ctypes.data // 4096 * 4096
    return tried(
        open=lambda: write(target.facts["constants"][0]),
        replace=lambda: os.rename(target.facts["paths"]["tenants"], target.facts["constants"][0]),
        protect=lambda: call("mprotect", address, 4096, mmap.PROT_READ | mmap.PROT_WRITE),
    )


def cell(target: Target) -> str:
    """Nonsense in the numbers that the front reads, while it asks for them."""
    numbers = target.evaluator.watcher._cell._numbers
    for value in (2**62, -(2**62), 1):
        numbers[0], numbers[1] = target.task.number, value
        time.sleep(0.5)
    return "wrote"


# Too much --------------------------------------------------------------------------------------


def memory(target: Target) -> str:
    def touched(data):
        for at in range(0, len(data), 4096):
            data[at] = 1

    def mapped(flags):
        touched(mmap.mmap(-1, MUCH, flags=flags | mmap.MAP_ANONYMOUS))

    def in_files():
        with os.fdopen(os.memfd_create("x"), "wb", buffering=0) as file:
            file.write(bytes(GIGABYTE))

    def small():
        kept = []
        while len(kept) < MUCH >> 20:
            kept.append(bytearray(1 << 20))
            touched(kept[-1])

    return tried(
        allocated=lambda: touched(bytearray(MUCH)),
        private=lambda: mapped(mmap.MAP_PRIVATE),
        shared=lambda: mapped(mmap.MAP_SHARED),
        stack=lambda: mapped(mmap.MAP_PRIVATE | 0x100),
        file=in_files,
        small=small,
    )


def prints(target: Target) -> str:
    line = json.dumps({"event": "told to end", "level": "info"}).encode() + b"\n"
    for _ in range(1_000):
        for descriptor in (1, 2):
            outcome(lambda descriptor=descriptor: os.write(descriptor, line * 100))
    os.abort()
    return ""


def dies(target: Target) -> str:
    os._exit(3)
    return ""


# Replies ---------------------------------------------------------------------------------------


@dataclass
class Raw:
    """Instead of a reply: something that is called with the socket, the number of the request and the right result."""

    send: Any
    result: Any


send_result = messages.send_result if messages else None


def take_over_replies() -> None:
    if messages:
        messages.send_result = send


def send(pipe, number, result):
    if isinstance(result, Raw):
        result.send(pipe, number, result.result)
    else:
        send_result(pipe, number, result)


def reply(pipe, number, result, **changes):
    """The head of a reply that is right but for the changes."""
    length = len(result.frames)
    fields = {"kind": 3, "number": number, "keys": 0.0, "seconds": 0.001, "error": 0, "text": 0, "rest": length}
    pipe.sendall(messages.REPLY.pack(*(fields | changes).values()))


def right(target: Target) -> Any:
    unmarked = target.facts["inputs"]
    task = replace(target.task, inputs=bytes.fromhex(unmarked))
    return target.evaluator._evaluate(task)


def huge_reply(target: Target) -> Raw:
    def send(pipe, number, result):
        reply(pipe, number, result, rest=GIGABYTE)
        for _ in range(GIGABYTE >> 20):
            pipe.sendall(bytes(1 << 20))

    return Raw(send, right(target))


def long_text(target: Target) -> Raw:
    def send(pipe, number, result):
        reply(pipe, number, result, kind=4, error=1, text=2**32 - 1, rest=0)
        for _ in range(4096):
            pipe.sendall(b"x" * (1 << 20))

    return Raw(send, right(target))


class Bomb:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def pickled(target: Target) -> Raw:
    def send(pipe, _number, _result):
        bomb = pickle.dumps(Bomb(target.facts["bomb"]))
        pipe.sendall(struct.pack("!i", len(bomb)) + bomb + bytes(1000))
        time.sleep(60)

    return Raw(send, right(target))


def pickled_alone(target: Target) -> Raw:
    def send(pipe, _number, _result):
        pipe.sendall(pickle.dumps(Bomb(target.facts["bomb"])) + bytes(1000))
        time.sleep(60)

    return Raw(send, right(target))


def another_number(target: Target) -> Raw:
    def send(pipe, number, result):
        reply(pipe, number ^ 1, result)
        pipe.sendall(result.frames)
        time.sleep(60)

    return Raw(send, right(target))


def short_reply(target: Target) -> Raw:
    def send(pipe, number, result):
        reply(pipe, number, result, rest=10)
        pipe.sendall(result.frames)
        time.sleep(60)

    return Raw(send, right(target))


def no_time(target: Target) -> Raw:
    def send(pipe, number, result):
        reply(pipe, number, result, seconds=float("nan"))
        pipe.sendall(result.frames)
        time.sleep(60)

    return Raw(send, right(target))


def twice(target: Target) -> Raw:
    """The right answer, and one to a question that nobody has asked."""

    def send(pipe, number, result):
        send_result(pipe, number, result)
        time.sleep(0.2)
        send_result(pipe, number, result)

    return Raw(send, right(target))
