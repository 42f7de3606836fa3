"""The clients from outside: processes that are started and ended, and what they tell, compared with the truth."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic

from benchmarks.soak.survive.caller import TIMEOUT, Task

_START_SECONDS = 120.0
_END_SECONDS = TIMEOUT + 30.0
"""A call ends within the client's timeout for each of its requests, of which hardly any has more than one."""

Truth = Mapping[str, Sequence[str]]
"""Labels of the images in cleartext, by the digest of the version's manifest."""


@dataclass
class Tally:
    """What the callers of one client saw.

    Attributes:
        begun, ended: calls.
        right, wrong: of those, the answers.
        by_version: answers by the digest of the manifest that they say they are by.
        errors: typed ones, by code.
        untyped: other exceptions, by class.
        last: when the last right answer came.
    """

    begun: int = 0
    ended: int = 0
    right: int = 0
    wrong: int = 0
    by_version: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    untyped: Counter[str] = field(default_factory=Counter)
    last: float = 0.0

    @property
    def under_way(self) -> int:
        return self.begun - self.ended

    def hear(self, told: dict[str, str], truth: Truth) -> None:
        """Count what a line says."""
        if "begun" in told:
            self.begun += 1
            return
        self.ended += 1
        if "error" in told:
            self.errors[told["error"]] += 1
        elif "untyped" in told:
            self.untyped[told["untyped"]] += 1
        elif told["manifest"] in truth and truth[told["manifest"]][int(told["image"])] == told["label"]:
            self.right += 1
            self.by_version[told["manifest"]] += 1
            self.last = monotonic()
        else:
            self.wrong += 1


class Callers:
    """A client's process, with those it forks; `way` is how it calls, `log` what it says of faults."""

    def __init__(self, way: str, task: Task, truth: Truth, log: Path) -> None:
        self.way = way
        self.tally = Tally()
        self.log = log
        self._truth = truth
        self._ready = threading.Event()
        with log.open("wb") as file:
            # A session of its own: Ctrl-C is for who started all this, and ends the group in its turn.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.soak.survive.caller", way],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                start_new_session=True,
            )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(task)).encode() + b"\n")
        self._process.stdin.flush()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def wait_until_ready(self) -> None:
        """RuntimeError when it does not begin to call."""
        if not self._ready.wait(_START_SECONDS):
            raise RuntimeError(f"{self.way} does not call: {self.log.read_text()}")

    def require_alive(self) -> None:
        """RuntimeError when its process has ended."""
        if self._process.poll() is not None:
            raise RuntimeError(f"{self.way} has ended: {self.log.read_text()}")

    def tell_to_end(self) -> None:
        """Have it begin no more calls."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()

    def end(self) -> bool:
        """Wait until the calls under way have ended; whether all has gone well."""
        self.tell_to_end()
        try:
            code = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            return False
        self._listener.join(_END_SECONDS)  # until the last child has closed its output
        return code == 0

    def close(self) -> None:
        """Kill what is there of it."""
        self.tell_to_end()
        if self._process.poll() is None or self._listener.is_alive():  # which children keep open
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._listener.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            if "ready" in told:
                self._ready.set()
            else:
                self.tally.hear(told, self._truth)
