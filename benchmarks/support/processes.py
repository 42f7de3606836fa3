"""A plan in a process of its own: its memory is that of the process, and one that dies takes no other along."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import ParamSpec

from benchmarks.support.records import Record
from heinfer.errors import PlanError

_Arguments = ParamSpec("_Arguments")


def in_a_process(plan: Callable[_Arguments, Record], *args: _Arguments.args, **options: _Arguments.kwargs) -> Record:
    """What a function says of a plan, or why there is none."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(plan, *args, **options).result()
        except PlanError as error:
            return {"failure": str(error)}
        except BrokenProcessPool:
            return {"failure": "the process that planned it died"}
