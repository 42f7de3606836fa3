"""How pixels, or other numbers, become a network's input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from heinfer.errors import SettingError
from heinfer.formats.layout_part import Part

_MAX_CHANNELS = 1024
_Channels = Field(min_length=1, max_length=_MAX_CHANNELS)


class Preprocessing(Part):
    """How pixels become the network's input: clip((pixel / divisor - mean) / std, low, high).

    A pixel is in 0..255, whatever holds it: a float f in 0..1 is the pixel 255 f, and so are 65535 f of 16 bits. Of the
    `kind` "values" inputs are any numbers, and a value stands for the pixel.
    mean and std have one entry a channel (the first axis of an input of three axes; other inputs have one channel).
    `ground` has as well, in 0..1: what transparent pixels are composited on. None: images with such are refused.

    Raises:
        SettingError: names the first argument that is missing or wrong.
    """

    divisor: Annotated[float, Field(gt=0)]
    mean: Annotated[tuple[float, ...], _Channels]
    std: Annotated[tuple[Annotated[float, Field(gt=0)], ...], _Channels]
    low: float
    high: float
    kind: Literal["image", "values"] = "image"
    ground: Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], _Channels] | None = None

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
            raise ValueError("mean and std must have one entry a channel each")
        if not self.low < self.high:
            raise ValueError("low must be below high")
        if self.ground is not None and self.kind == "values":
            raise ValueError("ground is for images: values have nothing behind them")
        if self.ground is not None and len(self.ground) != len(self.mean):
            raise ValueError("ground must have one entry a channel, as mean has")
        return self

    @property
    def largest(self) -> float:
        """The |value| that no input exceeds."""
        return max(abs(self.low), abs(self.high))


_PREPROCESSING = {
    "divisor": "a number above 0, such as 255 for pixels of 8 bits",
    "mean": "a tuple of one number a channel, such as (0.1307,)",
    "std": "a tuple of one number above 0 a channel, such as (0.3081,)",
    "low": "a number, the smallest value of an input",
    "high": "a number, the largest value of an input",
    "kind": "'image' or 'values'",
    "ground": "a tuple of one number in 0..1 a channel, such as (0.0,), or None",
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
