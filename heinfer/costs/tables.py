"""The cost model: measured milliseconds of every ciphertext operation, per backend, ring degree and level."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from heinfer.brief import brief_repr
from heinfer.errors import FormatError, PlanError

OPERATIONS = ("rotation", "hma", "square", "relinearize", "rescale", "encode", "drop_level", "add")
"""What a table has a row for; "hma" is a product by a plaintext and the addition of it to a sum."""

HOISTED = "rotation_hoisted"
"""A row that only tables of backends with hoisting have: a further rotation that shares the digits of another."""

KEY_SWITCHES = frozenset({"rotation", HOISTED, "relinearize"})

_Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class CostTable:
    """Milliseconds of one operation at each level, one thread.

    Attributes:
        backend: which backend was measured.
        ring_degree: at which N.
        milliseconds: operation name -> times at level 0, 1, 2, ...
        machine: which machine was measured.
        date: ISO date of the measurement.
    """

    backend: str
    ring_degree: int
    milliseconds: dict[str, Annotated[tuple[_Milliseconds, ...], Field(min_length=1)]]
    machine: str
    date: str

    __repr__ = brief_repr

    def _about(self) -> str:
        return f"{self.backend}, N={self.ring_degree}: {', '.join(self.milliseconds)}; {self.machine}"

    def __call__(self, operation: str, level: int) -> float:
        """Milliseconds of an operation at a level.

        Above the table's levels a key switch grows with the square of the primes, and everything else with them.
        Without hoisting a hoisted rotation is one like any other.
        """
        times = self.milliseconds["rotation" if operation == HOISTED and not self.hoists else operation]
        if level < len(times):
            return times[level]
        growth = (level + 1) / len(times)
        return times[-1] * (growth**2 if operation in KEY_SWITCHES else growth)

    @property
    def hoists(self) -> bool:
        """Whether rotations of one ciphertext are cheaper together."""
        return HOISTED in self.milliseconds

    @property
    def levels(self) -> int:
        """Number of levels that were measured."""
        return len(self.milliseconds["rotation"])


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Literal[1]
    tables: tuple[CostTable, ...]


def load_costs(path: Path | None = None) -> tuple[CostTable, ...]:
    """Read the tables of a file that :func:`save_costs` wrote, by default those that ship with heinfer.

    Raises:
        FormatError: when it cannot be read, or is no such file; says what is wrong with it.
    """
    file = path or resources.files("heinfer.costs").joinpath("costs.json")
    try:
        tables = _File.model_validate_json(file.read_text()).tables
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{file} cannot be read: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise _unusable(file, f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}") from None
    for table in tables:
        if set(table.milliseconds) - {HOISTED} != set(OPERATIONS):
            raise _unusable(file, f"N = {table.ring_degree}: it must have just the rows {', '.join(OPERATIONS)}")
        if len({len(times) for times in table.milliseconds.values()}) > 1:
            raise _unusable(file, f"N = {table.ring_degree}: its rows must have equally many levels")
    return tables


def _unusable(file: object, problem: str) -> FormatError:
    return FormatError(f"{file} is no cost table ({problem}): make one by `heinfer calibrate --out FILE`")


def save_costs(tables: Iterable[CostTable], path: Path) -> None:
    """Write tables as a small JSON file, one row of times a line."""
    rounded = [
        asdict(table) | {"milliseconds": {row: [round(t, 4) for t in table.milliseconds[row]] for row in rows(table)}}
        for table in tables
    ]
    text = json.dumps({"format": 1, "tables": rounded}, indent=2)
    text = re.sub(r"(?<=,)\n +(?=\d)", " ", text)
    path.write_text(re.sub(r"(?<=\[)\n +(?=\d)|(?<=\d)\n +(?=\])", "", text) + "\n")


def rows(table: CostTable) -> tuple[str, ...]:
    """Names of a table's rows, in the order of a file."""
    return (*OPERATIONS, HOISTED) if table.hoists else OPERATIONS


def cost_tables(ring_degree: int, path: Path | None = None) -> dict[str, CostTable]:
    """Return the tables of all backends in a file, by default the shipped one, for a ring degree.

    A ring degree without a table scales from the nearest measured one by N log N.

    Raises:
        FormatError: when the file is no cost table.
    """
    found: dict[str, CostTable] = {}
    for table in load_costs(path) if path else _shipped():
        nearest = found.get(table.backend, table)
        found[table.backend] = min(nearest, table, key=lambda t: _octaves(t.ring_degree, ring_degree))
    return {backend: _scaled(table, ring_degree) for backend, table in found.items()}


def _octaves(one: int, other: int) -> int:
    return abs(one.bit_length() - other.bit_length())


def cost_table(ring_degree: int, backend: str = "tenseal", path: Path | None = None) -> CostTable:
    """Return one backend's of :func:`cost_tables`.

    Raises:
        FormatError: when the file is no cost table.
        PlanError: when it has none of that backend.
    """
    return table_of(cost_tables(ring_degree, path), backend)


def table_of(tables: Mapping[str, CostTable], backend: str) -> CostTable:
    """One backend's of some tables; PlanError when there is none."""
    if backend not in tables:
        raise PlanError(f"no cost table for backend {backend!r}; there are {sorted(tables)}")
    return tables[backend]


@lru_cache
def _shipped() -> tuple[CostTable, ...]:
    return load_costs()


def _scaled(table: CostTable, ring_degree: int) -> CostTable:
    factor = ring_degree * ring_degree.bit_length() / (table.ring_degree * table.ring_degree.bit_length())
    times = {name: tuple(t * factor for t in row) for name, row in table.milliseconds.items()}
    return CostTable(table.backend, ring_degree, times, table.machine, table.date)
