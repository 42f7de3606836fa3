"""What objects say of themselves in a notebook, a traceback or a log: what they are, not all that they hold."""

from __future__ import annotations

from collections.abc import Mapping, Set
from contextlib import suppress
from enum import Enum
from numbers import Integral, Real
from pathlib import PurePath
from typing import Any

LONGEST = 200
"""Characters that a repr has at most."""

_LONGEST_VALUE = 60
"""The same of one field."""


def brief_repr(self: Any) -> str:
    """``Name(field=value, ...)``: of arrays the shape, of collections that are long the length, of objects the type.

    A class with a method ``_about`` is shown as ``<Name what that says>`` instead, but where it fails: a repr is what
    one sees of an object that is wrong.
    """
    name = type(self).__name__
    with suppress(Exception):
        return f"<{cut(f'{name} {self._about()}', LONGEST - 2)}>"
    fields = [f"{field}={_value(getattr(self, field, None))}" for field in _fields(self)]
    return f"{name}({cut(', '.join(fields), LONGEST - len(name) - 2)})"


def cut(text: str, most: int) -> str:
    """The text, or its beginning and dots."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _fields(thing: Any) -> list[str]:
    """Names of the fields of a dataclass or of one of pydantic's models, but for those that are not to be shown."""
    of_model = getattr(type(thing), "model_fields", None)
    of_class = getattr(type(thing), "__dataclass_fields__", {}) if of_model is None else of_model
    return [name for name, field in of_class.items() if field.repr]


def _value(value: object) -> str:
    match value:
        case Enum():
            return _value(value.value)
        case Real() if not isinstance(value, Integral):
            return f"{float(value):.6g}"
        case None | Integral() | str() | PurePath():
            return cut(repr(value), _LONGEST_VALUE)
        case bytes() | bytearray() | memoryview():
            return f"<{len(value)} bytes>"
        case tuple() | list() | Set() | Mapping():
            return _collection(value)
    shape = getattr(value, "shape", None)
    return f"<{type(value).__name__}>" if shape is None else f"<{type(value).__name__} of shape {tuple(shape)}>"


def _collection(value: Any) -> str:
    """All of it where it is short and of plain values, else how much there is."""
    plain = len(value) <= _LONGEST_VALUE and not isinstance(value, Mapping | Set)
    if plain and all(isinstance(entry, Real | str | None) for entry in value):
        text = ", ".join(map(_value, value))
        if len(text) <= _LONGEST_VALUE:
            return f"[{text}]" if isinstance(value, list) else f"({text}{',' * (len(value) == 1)})"
    return f"<{type(value).__name__} of {len(value)}>"
