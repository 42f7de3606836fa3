"""The types that a user of the library meets: those exported, and all that is reached from them."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import typing
from collections.abc import Iterator
from importlib import import_module
from pkgutil import walk_packages
from types import ModuleType
from typing import Any

import pydantic
import torch

import heinfer
import heinfer.convert
import heinfer.zoo
import heinfer_client
from heinfer.costs.tables import CostTable, load_costs

EXPORTING: tuple[ModuleType, ...] = (heinfer, heinfer.convert, heinfer.zoo, heinfer_client)
DOCUMENTED = (CostTable, load_costs)
"""What documents name of modules that export nothing."""


def is_record(kind: object) -> bool:
    """Whether it is a class of ours with fields."""
    ours = isinstance(kind, type) and kind.__module__.partition(".")[0] in ("heinfer", "heinfer_client")
    return ours and (dataclasses.is_dataclass(kind) or issubclass(kind, pydantic.BaseModel))


def met_types() -> set[type]:
    """Records among what is exported, in what its functions return, and in the fields and properties of all these."""
    seen: set[Any] = set()
    waiting = [*DOCUMENTED, *(getattr(module, name) for module in EXPORTING for name in module.__all__)]
    while waiting:
        thing = waiting.pop()
        if not getattr(thing, "__module__", None) or not thing.__module__.startswith("heinfer") or thing in seen:
            continue
        seen.add(thing)
        if inspect.isfunction(thing):
            waiting += parts_of(hints(thing).get("return"))
        elif isinstance(thing, type):
            waiting += [part for hint in hints(thing).values() for part in parts_of(hint)]
            waiting += returning(thing)
            waiting += [*thing.__subclasses__(), *thing.__mro__]
    return {kind for kind in seen if is_record(kind)}


def returning(kind: type) -> Iterator[Any]:
    """What the public methods and properties of a class return."""
    for name, member in inspect.getmembers(kind):
        function = getattr(member, "fget", None) or getattr(member, "func", None) or member
        if not name.startswith("_") and inspect.isfunction(function) and function.__module__.startswith("heinfer"):
            yield from parts_of(hints(function).get("return"))


def hints(thing: Any) -> dict[str, Any]:
    """Resolved annotations; names that are imported for checkers alone are looked up where they come from."""
    names = {**vars(typing), **everything(), "nn": torch.nn, **vars(sys.modules[thing.__module__])}
    return typing.get_type_hints(thing, localns=names)


def everything() -> dict[str, Any]:
    if not _EVERYTHING:
        for package in (heinfer, heinfer_client):
            for found in walk_packages(package.__path__, f"{package.__name__}."):
                if not found.name.endswith("__main__"):
                    _EVERYTHING.update(vars(import_module(found.name)))
    return _EVERYTHING


_EVERYTHING: dict[str, Any] = {}


def parts_of(hint: Any) -> Iterator[Any]:
    """The classes that an annotation names."""
    if isinstance(hint, type) and not typing.get_args(hint):
        yield hint
    for argument in typing.get_args(hint):
        yield from parts_of(argument)


PLAIN = (int, float, bool, str, type(None))


def is_plain(kind: type) -> bool:
    """Whether every field is a number or a word."""
    found = [part for hint in hints(kind).values() for part in (*parts_of(hint), typing.get_origin(hint))]
    return all(part is None or part in PLAIN or issubclass(part, PLAIN) for part in found if isinstance(part, type))
