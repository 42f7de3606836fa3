"""Hostile code in a worker process, as if a client's frame had taken it over: it is there when the interpreter starts.

A request whose seed begins with MARK names what to try, and what that came to is the text of the error that its client
gets: "done" for everything that must not be possible. Beside the marked requests, the worker does what it should.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

MARK = b"hostile:"

if "heinfer_server.evaluation.worker_process" in sys.orig_argv or "--multiprocessing-fork" in sys.orig_argv:
    import attacks

    from heinfer.errors import BackendError
    from heinfer_server.evaluation.evaluator import Evaluator
    from heinfer_server.evaluation.tasks import TaskFailure

    FACTS = json.loads((Path(__file__).parent / "facts.json").read_text())
    FACTS["constants"] = [str(path) for path in Path(FACTS["paths"]["constants"]).iterdir()]
    evaluate = Evaluator.run

    def run(self, task):
        at = task.inputs.find(MARK)
        if at < 0:
            return evaluate(self, task)
        name, front, *workers = task.inputs[at + len(MARK) :].split(b"\0")[0].decode().split()
        sibling = next(pid for pid in map(int, workers) if pid != os.getpid())
        found = getattr(attacks, name)(attacks.Target(FACTS, int(front), sibling, self, task))
        if not isinstance(found, str):
            return found
        return TaskFailure(BackendError(f"{os.getpid()} {found}"[:1000]), "")

    Evaluator.run = run
    attacks.take_over_replies()
