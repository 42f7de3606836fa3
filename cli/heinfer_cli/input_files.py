"""Files as inputs: pictures, arrays, and tables of records."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heinfer.brief import brief_repr
from heinfer.errors import ImageError, SettingError
from heinfer.extras import needs

if TYPE_CHECKING:
    from heinfer_client.inputs import Input


@dataclass(frozen=True, eq=False)
class Loaded:
    """One input, or one of each of a model's inputs, and what to call it on a terminal."""

    title: str
    path: Path | None
    given: Input

    __repr__ = brief_repr


def load(path: Path) -> list[Loaded]:
    """All inputs of a file: of a table one a row, otherwise one; ImageError when it cannot be read."""
    try:
        if path.suffix.lower() == ".csv":
            return _table(path)
        return [Loaded(path.name, path, _array_or_picture(path))]
    except ImageError:
        raise
    except Exception as error:  # readers of files raise whatever a damaged one brings them to
        raise ImageError(
            f"{path} cannot be read: give a PNG file, an array that numpy.save wrote, or a table in a .csv file"
        ) from error


def load_by_name(chosen: Sequence[str]) -> Loaded:
    """The inputs of one request, each given as NAME=FILE.

    Raises:
        SettingError: when one is given otherwise, or twice.
        ImageError: when a file cannot be read, or is a table of several records.
    """
    found: dict[str, Input] = {}
    for each in chosen:
        name, equals, file = each.partition("=")
        if not (name and equals and file):
            raise SettingError(f"--input {each!r}: write it as NAME=FILE, such as --input image=scan.png")
        if name in found:
            raise SettingError(f"--input {name} is given twice: each input of the model once")
        loaded = load(Path(file))
        if len(loaded) != 1:
            raise ImageError(f"{file} has {len(loaded)} records, and one is expected beside the other inputs")
        found[name] = loaded[0].given
    return Loaded(", ".join(chosen), None, found)


def _array_or_picture(path: Path) -> Input:
    """An array, or a picture as its file has it: what it means is the client's to say."""
    import numpy as np

    with needs("client"):
        from PIL import Image as Pictures

    if path.suffix == ".npy":
        array: Input = np.load(path, allow_pickle=False)
        return array
    data = path.read_bytes()
    Pictures.open(BytesIO(data)).load()  # not of what is returned: how a file holds its pixels is lost with that
    return Pictures.open(BytesIO(data))


def _table(path: Path) -> list[Loaded]:
    """Rows of numbers, or, below a line of names, of numbers by their names."""
    import numpy as np

    rows = [row for row in csv.reader(StringIO(path.read_text(encoding="utf-8-sig"))) if row]
    if rows and len(rows[0]) == 1 and any(mark in rows[0][0] for mark in (";", "\t")):
        raise ImageError(
            f"{path} has its columns separated by something else", "save it with commas, and points in numbers"
        )
    names = [name.strip() for name in rows[0]] if rows and any(map(_is_text, rows[0])) else None
    records = rows[1:] if names else rows
    if not records:
        raise ImageError(f"{path} has no row of values")
    if names and (twice := sorted({name for name in names if names.count(name) > 1})):
        raise ImageError(f"{path} has more than one column {', '.join(map(repr, twice))}")
    found = []
    for number, row in enumerate(records, 2 if names else 1):
        title = path.name if len(records) == 1 else f"{path.name}:{number}"
        if names and len(row) != len(names):
            raise ImageError(f"{path}: line {number} has {len(row)} values, and there are {len(names)} columns")
        cells = [_number(cell) for cell in row]
        if names:
            found.append(Loaded(title, path, dict(zip(names, cells, strict=True))))
        elif any(isinstance(cell, str) for cell in cells):
            raise ImageError(f"{path}: line {number} has text where a number is expected")
        else:
            found.append(Loaded(title, path, np.array(cells, dtype=np.float64)))
    return found


def _number(cell: str) -> Any:
    """A cell's number; None of an empty one, and text as it is, which the client refuses by the column's name."""
    if not cell.strip():
        return None
    try:
        return float(cell)
    except ValueError:
        return cell


def _is_text(cell: str) -> bool:
    return isinstance(_number(cell), str)
