"""The two ends of a model as a manifest lists them: what goes in, what comes out, and where it is in ciphertexts."""

from __future__ import annotations

from collections.abc import Sequence
from sys import float_info
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from heinfer.errors import LayoutError
from heinfer.formats.keys_part import PART_NAME, Level
from heinfer.formats.layout_part import MAX_TOTAL_SLOTS, LayoutPart, Part
from heinfer.formats.preprocessing import Preprocessing
from heinfer.layout.layout import Layout
from heinfer.layout.parts import TensorPart, joined

MOST_PARTS: Final = 16
"""Inputs, and outputs, of a model."""
MAX_LABEL: Final = 64
MAX_EXPONENT: Final = 256
"""Of two, by which scores may have been scaled."""


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("control characters are not allowed")
    return text


_Scale = Annotated[float, Field(ge=float_info.min)]
"""A normal number: SEAL before 4.4 takes smaller ones, and divides by them."""
_Label = Annotated[str, Field(max_length=MAX_LABEL), AfterValidator(_printable)]


class InputPart(Part):
    """One input, or a batch of it, as the client sends it.

    Of several each has its own slots of the same ciphertexts, at one level and scale, and its own exponent.
    """

    name: Annotated[str, Field(pattern=PART_NAME)]
    preprocessing: Preprocessing
    layout: LayoutPart
    level: Level
    scale: _Scale


class OutputPart(Part):
    """One output as the server returns it: its scores are what is decoded, times 2^exponent.

    Of several each has its own slots of the same ciphertexts, at one level and scale, and its own exponent.

    Attributes:
        kind: "classification" when only the order of an image's scores counts, "values" when they themselves do.
        range: largest |score| that the scales were chosen for; what the parameters can represent may be more
            (:meth:`Manifest.capacity_of`).
        labels: name each score of an image, or are empty.
    """

    name: Annotated[str, Field(pattern=PART_NAME)]
    kind: Literal["classification", "values"]
    layout: LayoutPart
    level: Level
    scale: _Scale
    exponent: Annotated[int, Field(ge=-MAX_EXPONENT, le=MAX_EXPONENT)]
    range: Annotated[float, Field(gt=0)]
    labels: tuple[_Label, ...]


def version_for(inputs: Sequence[InputPart], outputs: Sequence[OutputPart], batch: int) -> Literal[3, 4]:
    """The lowest version of a manifest that can have these inputs and outputs."""
    if len(inputs) > 1 or len(outputs) > 1:
        return 4
    shape = inputs[0].layout.shape if batch == 1 else inputs[0].layout.shape[1:]
    return 4 if inputs[0].preprocessing.needs_format_4(shape) else 3


def joint_layout(parts: Sequence[InputPart] | Sequence[OutputPart], batch: int) -> Layout:
    """Of the concatenation of all parts, of one image or a batch; LayoutError when they do not go together."""
    return joined([part.layout.to_layout() for part in parts], batch)


def joint_shape(parts: Sequence[TensorPart]) -> tuple[int, ...]:
    """Of the only part, or (n,) of the concatenation of several."""
    return parts[0].shape if len(parts) == 1 else (sum(part.size for part in parts),)


def titles(parts: Sequence[TensorPart]) -> str:
    """Names and shapes, for people."""
    return str(parts[0].shape) if len(parts) == 1 else ", ".join(f"{part.name} {part.shape}" for part in parts)


def require_one_frame(what: str, parts: Sequence[InputPart] | Sequence[OutputPart], batch: int) -> None:
    """Several parts share ciphertexts and what holds for these, and no slot.

    Raises:
        ValueError: says what is wrong.
    """
    if len(parts) == 1:
        return
    if len({part.name for part in parts}) < len(parts):
        raise ValueError(f"two of the {what} have one name")
    first = parts[0]
    if any(_shared(part) != _shared(first) for part in parts):
        raise ValueError(f"all {what} must have one level and scale: they are in the same ciphertexts")
    if len(parts) * first.layout.ciphertexts * first.layout.slots > MAX_TOTAL_SLOTS:
        raise ValueError(f"the layouts of all {what} may have {MAX_TOTAL_SLOTS} slots in all")
    try:
        joint_layout(parts, batch)
    except LayoutError as error:
        raise ValueError(f"the {what}: {error}") from None


def _shared(part: InputPart | OutputPart) -> tuple[float, ...]:
    return part.level, part.scale, part.layout.ciphertexts, part.layout.slots
