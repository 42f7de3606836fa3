"""What a caller may give for an input of the kind "values": numbers by their place, or by the names of features.

Messages name features and their declared ranges, and none of the numbers that were given: they may be a patient's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from numbers import Real
from typing import Any, Protocol, runtime_checkable

import numpy as np

from heinfer.brief import brief_repr
from heinfer.errors import ImageError
from heinfer.formats.preprocessing import Preprocessing
from heinfer_client.arrays import Array, array_of, finite, fits, shapes, way_to_many

_TOLERANCE = 1e-5  # of the declared range: what is normalised in float32 is that inexact
_NAMED = 8
_COMPARED = 256
"""Names that are looked at for one that may be meant, or listed: a manifest may have many thousands."""


@runtime_checkable
class Named(Protocol):
    """What has a thing for each of some names: a mapping, a row of a pandas table."""

    def keys(self) -> Iterable[Any]: ...

    def __getitem__(self, name: Any, /) -> Any: ...


@dataclass(frozen=True, eq=False)
class Record:
    """Names and what was given under each, as they were when they were given.

    Attributes:
        names: in order; one that comes twice is there twice, and which of its values is meant, nobody can say.
        values: by name.
    """

    names: tuple[Any, ...]
    values: dict[Any, Any] = field(repr=False)

    __repr__ = brief_repr

    @classmethod
    def of(cls, given: Named) -> Record:
        """From a mapping or what is like one."""
        if isinstance(given, Record):
            return given
        names = tuple(given.keys())
        return cls(names, {name: given[name] for name in names})

    def keys(self) -> tuple[Any, ...]:
        return self.names

    def __getitem__(self, name: Any, /) -> Any:
        return self.values[name]

    def misfits(self, expected: Sequence[str]) -> list[str]:
        """What is wrong with the names where just the expected ones are to be given, in words."""
        known = set(expected)
        found = {
            "missing": [name for name in expected if name not in self.values],
            "unknown to the model": [name for name in self.values if name not in known],
            "given twice": [name for name, count in Counter(self.names).items() if count > 1],
        }
        return [f"{listed(names)} {what}" for what, names in found.items() if names]


def values_of(given: object, shape: tuple[int, ...], preprocessing: Preprocessing) -> Array:
    """Finite numbers of the input's shape: of an array, or of names where the model names its features.

    Raises:
        ImageError: for another type, shape or dtype, NaN; a name that is missing, wrong or comes twice.
    """
    features = preprocessing.features
    if isinstance(given, Named) and not isinstance(given, np.ndarray):
        if type(given).__name__ == "DataFrame":
            raise ImageError("one record is expected, got a DataFrame", "give a row of it, as table.iloc[0] is")
        if features is None:
            raise ImageError(
                f"an array of shape {shapes(shape)} is expected, got names: this model does not name its features",
                "give the values as a NumPy array, in the order that the model was trained on",
            )
        return _by_name(Record.of(given), features)
    numbers = array_of(given, "a NumPy array" if features is None else "a NumPy array, or a mapping of features,")
    if not fits(numbers.shape, shape):
        told = "" if features is None else f" ({listed(features)})"
        raise ImageError(
            f"values of shape {shapes(shape)}{told} are expected, got {numbers.shape}",
            way_to_many(numbers.shape, shape) or ("use values.T" if numbers.shape == shape[::-1] else ""),
        )
    return _finite(numbers.reshape(shape), features)


def require_declared(inputs: Array, preprocessing: Preprocessing) -> None:
    """Values have no white to end at: what lies beyond the declared range would be taken for another input."""
    told = preprocessing.over(inputs.shape)
    tolerance = _TOLERANCE * (told.high - told.low)
    beyond = (inputs < told.low - tolerance) | (inputs > told.high + tolerance)
    if not beyond.any():
        return
    way_out = "leave out what is unlike its training data, or have it compiled for a wider range"
    if not (told.mean.ndim or told.low.ndim or told.high.ndim) and preprocessing.features is None:
        raise ImageError(
            f"values between {told.low:g} and {told.high:g}, normalised, are expected: the model is not made for "
            "others",
            way_out,
        )
    divisor = preprocessing.divisor
    ends = [
        np.broadcast_to((end * told.std + told.mean) * divisor, inputs.shape).reshape(-1)
        for end in (told.low, told.high)
    ]
    places = np.flatnonzero(beyond)
    names = [
        f"{_place(int(at), inputs.shape, preprocessing.features)} between {ends[0][at]:.6g} and {ends[1][at]:.6g}"
        for at in places[:_NAMED]
    ]
    more = f" and {len(places) - _NAMED} more" if len(places) > _NAMED else ""
    raise ImageError(f"{', '.join(names)}{more} is expected: the model is not made for other values", way_out)


def _by_name(record: Record, features: Sequence[str]) -> Array:
    if wrong := record.misfits(features):
        known = set(features)
        missing = [name for name in features if name not in record.values][:_COMPARED]
        unknown = [name for name in record.values if name not in known]
        meant = [near[0] for name in unknown[:_NAMED] if (near := get_close_matches(str(name), missing, 1))]
        way = f"did you mean {listed(meant)}" if meant else f"the features are {listed(features, _COMPARED)}"
        raise ImageError(f"the {len(features)} features of the model are expected, {'; '.join(wrong)}", way)
    numbers = []
    for name in features:
        value = record[name]
        if isinstance(value, np.ndarray | np.generic) and np.ndim(value) == 0:
            value = value.item()
        if value is None:
            raise ImageError(f"{name!r} is missing: its value is None", _FILL)
        if not isinstance(value, Real) or isinstance(value, bool):
            raise ImageError(
                f"{name!r} must be a number, got {type(value).__name__}", "give it as it was coded for training"
            )
        try:
            numbers.append(float(value))
        except OverflowError:
            numbers.append(np.inf)
    return _finite(np.array(numbers), features)


_FILL = "fill in what the training data had for missing values, or leave the record out"


def _finite(numbers: Any, features: Sequence[str] | None) -> Array:
    try:
        return finite(numbers, "values")
    except ImageError as error:
        if numbers.dtype.kind != "f":
            raise
        bad = np.flatnonzero(~np.isfinite(numbers))
        if not bad.size:  # beyond what float64 holds
            raise
        where = ", ".join(_place(int(at), numbers.shape, features) for at in bad[:_NAMED])
        raise ImageError(f"{error.cause} in {where}", _FILL) from None


def _place(at: int, shape: tuple[int, ...], features: Sequence[str] | None) -> str:
    if features is not None:
        return repr(features[at])
    return f"element {[int(axis) for axis in np.unravel_index(at, shape)]}"


def listed(names: Sequence[object], most: int = _NAMED) -> str:
    """Names for people, of many the first."""
    told = ", ".join(repr(name if isinstance(name, str) else str(name)) for name in names[:most])
    return f"{told} and {len(names) - most} more" if len(names) > most else told
