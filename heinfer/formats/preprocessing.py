"""How pixels, or other numbers, become a network's input."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, ValidationError, model_validator

from heinfer.brief import brief_repr
from heinfer.errors import SettingError
from heinfer.formats.layout_part import Part

MAX_ENTRIES = 1 << 16
MAX_CHANNELS_3 = 1024
"""Entries that formats before 4 took."""
MAX_FEATURE = 64
"""Characters of a feature's name."""

_Several = Field(min_length=1, max_length=MAX_ENTRIES)
_Numbers = Annotated[tuple[float, ...], _Several]
_Array = NDArray[np.float64]


def _is_name(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("a name has no control characters, and no space at its ends")
    return text


_Feature = Annotated[str, Field(min_length=1, max_length=MAX_FEATURE), AfterValidator(_is_name)]


class Preprocessing(Part):
    """How pixels become the network's input: clip((pixel / divisor - mean) / std, low, high).

    A pixel is in 0..255, whatever holds it: a float f in 0..1 is the pixel 255 f, and so are 65535 f of 16 bits. Of the
    `kind` "values" inputs are any numbers, and a value stands for the pixel.
    mean and std have one entry for all, one a channel (the first axis; of images, of an input of three axes), or one
    an element; low and high may have them too. `ground` has as many as mean, in 0..1: what transparent pixels are
    composited on. None: images with such are refused. `features` names the elements of an input of one axis of the kind
    "values", which may then be given by name.

    Raises:
        SettingError: names the first argument that is missing or wrong.
    """

    divisor: Annotated[float, Field(gt=0)]
    mean: _Numbers
    std: Annotated[tuple[Annotated[float, Field(gt=0)], ...], _Several]
    low: float | _Numbers
    high: float | _Numbers
    kind: Literal["image", "values"] = "image"
    ground: Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], _Several] | None = None
    features: Annotated[tuple[_Feature, ...], _Several] | None = None

    if not TYPE_CHECKING:  # checkers know the arguments by the fields

        def __init__(self, **data: Any) -> None:
            try:
                super().__init__(**data)
            except ValidationError as error:
                raise SettingError(f"Preprocessing: {_what_is_wrong(error)}") from None

        # pydantic's own mark: a manifest that is parsed does not come through here, and is read as JSON all the way.
        __init__.__pydantic_base_init__ = True

    @model_validator(mode="after")
    def _is_consistent(self) -> Preprocessing:
        if len(self.mean) != len(self.std):
            raise ValueError("mean and std must have as many entries, one for all, one a channel or one an element")
        low, high = _entries(self.low), _entries(self.high)
        if len(low) != len(high) and 1 not in (len(low), len(high)):
            raise ValueError("low and high must have as many entries, or one for all")
        if not (np.array(low) < np.array(high)).all():
            raise ValueError("low must be below high")
        if self.ground is not None and self.kind == "values":
            raise ValueError("ground is for images: values have nothing behind them")
        if self.ground is not None and len(self.ground) != len(self.mean):
            raise ValueError("ground must have one entry a channel, as mean has")
        if self.features is not None and self.kind != "values":
            raise ValueError("features are named in inputs of kind='values'")
        if self.features is not None and len(set(self.features)) < len(self.features):
            raise ValueError("two features have one name")
        return self

    @property
    def largest(self) -> float:
        """The largest |input| that is let through."""
        return max(abs(number) for number in (*_entries(self.low), *_entries(self.high)))

    def misfit(self, shape: tuple[int, ...]) -> str | None:
        """Why it says nothing of inputs of a shape; None where it does."""
        channels, elements = self._channels(shape), prod(shape)
        entries = {"mean and std": len(self.mean), "low": len(_entries(self.low)), "high": len(_entries(self.high))}
        for what, count in entries.items():
            if count not in {1, channels, elements}:
                return (
                    f"{what} must have 1 entry for all, one a channel ({channels}) or one an element ({elements}) of "
                    f"an input of shape {shape}, not {count}"
                )
        if self.ground is not None and len(self.ground) not in {1, channels}:
            return f"ground must have one entry a channel ({channels}), not {len(self.ground)}"
        if self.features is not None and shape != (len(self.features),):
            return f"{len(self.features)} features name the elements of an input ({len(self.features)},), not {shape}"
        return None

    def needs_format_4(self, shape: tuple[int, ...]) -> bool:
        """Whether it says what no manifest before format 4 could."""
        before = shape[0] if len(shape) == 3 else 1
        by_channel = isinstance(self.low, float) and isinstance(self.high, float) and len(self.mean) == before
        return not by_channel or before > MAX_CHANNELS_3 or self.features is not None

    def over(self, shape: tuple[int, ...]) -> Spread:
        """Its numbers as arrays that broadcast over inputs of a shape that it fits."""
        return Spread(*(self._spread(_entries(of), shape) for of in (self.mean, self.std, self.low, self.high)))

    def _channels(self, shape: tuple[int, ...]) -> int:
        return shape[0] if self.kind == "values" or len(shape) == 3 else 1

    def _spread(self, entries: tuple[float, ...], shape: tuple[int, ...]) -> _Array:
        if len(entries) == 1:
            return np.array(entries[0])
        if len(entries) == self._channels(shape):
            return np.array(entries).reshape(-1, *(1 for _ in shape[1:]))
        return np.array(entries).reshape(shape)


@dataclass(frozen=True, eq=False)
class Spread:
    """What a Preprocessing says of each element of an input: arrays that broadcast over its shape."""

    mean: _Array
    std: _Array
    low: _Array
    high: _Array

    __repr__ = brief_repr


def _entries(numbers: float | tuple[float, ...]) -> tuple[float, ...]:
    return numbers if isinstance(numbers, tuple) else (numbers,)


_PREPROCESSING = {
    "divisor": "a number above 0, such as 255 for pixels of 8 bits",
    "mean": "a tuple of one number for all, one a channel or one an element, such as (0.1307,)",
    "std": "a tuple of one number above 0 for all, one a channel or one an element, such as (0.3081,)",
    "low": "a number, the smallest value of an input, or a tuple of one a channel or one an element",
    "high": "a number, the largest value of an input, or a tuple of one a channel or one an element",
    "kind": "'image' or 'values'",
    "ground": "a tuple of one number in 0..1 a channel, such as (0.0,), or None",
    "features": f"a tuple of names of 1 to {MAX_FEATURE} characters, one an element, such as ('age', 'pulse'), or None",
}


def _what_is_wrong(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    if not first["loc"]:
        return first["msg"].removeprefix("Value error, ")
    field = str(first["loc"][0])
    if field not in _PREPROCESSING:
        return f"there is no {field}; it has {', '.join(_PREPROCESSING)}"
    if first["type"] == "missing":
        return f"{field} is missing: {_PREPROCESSING[field]}"
    return f"{field} must be {_PREPROCESSING[field]}; {first['input']!r} is not"
