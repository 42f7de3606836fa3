"""The arguments of compile(), all looked at before anything is planned, which may take minutes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from math import prod
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from heinfer.brief import brief_repr
from heinfer.compiler.calibration import Inputs, require_finite, require_part_name, require_range
from heinfer.errors import CompileError, ShapeError
from heinfer.formats.ends_part import MAX_LABEL, MOST_PARTS
from heinfer.formats.manifest import NAME, VERSION, Preprocessing
from heinfer.layout.parts import TensorPart, parts_of
from heinfer.network.ir import Network
from heinfer.planner.planner import Planner
from heinfer.planner.requirements import Requirements

Array = NDArray[np.float64]
Preprocessings: TypeAlias = Preprocessing | Mapping[str, Preprocessing]
Labels: TypeAlias = tuple[str, ...] | Mapping[str, tuple[str, ...]]
Outputs: TypeAlias = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Description:
    """What compile() is told besides the network and its inputs; its arguments say what they are."""

    name: str
    preprocessing: Preprocessings
    labels: Labels
    outputs: Outputs | tuple[str, ...] | None
    model_version: str
    metadata: Mapping[str, str] | None
    requirements: Requirements
    planner: Planner

    def require(self, network: Network, inputs: Inputs) -> Described:
        """What it says of each input and output of a network.

        Raises:
            CompileError, ShapeError: for all that is no description, or does not fit the network and its inputs.
        """
        found = Described(self, inputs.parts, _output_parts(self.outputs, self.labels, network.output_shape))
        checks = [
            partial(_require_requirements, self.requirements),
            partial(_require_words, self.name, self.model_version, self.metadata),
            partial(_require_labels, self.labels, found.outputs),
            partial(_require_input, inputs.values, network.input_shape),
            *(partial(_require_part, found, part, inputs) for part in inputs.parts),
        ]
        _all_at_once(checks)
        return found


@dataclass(frozen=True)
class Described:
    """A description beside the inputs and outputs that it is of, each with what is said of it."""

    told: Description
    inputs: tuple[TensorPart, ...]
    outputs: tuple[TensorPart, ...]

    __repr__ = brief_repr

    def preprocessing(self, part: TensorPart) -> Preprocessing:
        """Of an input; CompileError when there is none, or it does not fit."""
        given: object = self.told.preprocessing
        if isinstance(given, Mapping) and any(isinstance(own, Preprocessing) for own in given.values()):
            names = [part.name for part in self.inputs]
            if set(given) != set(names):
                raise CompileError(
                    f"preprocessing is of {_named(given)}, the calibration inputs are {_named(names)}: give one for "
                    "each by its name"
                )
            given = given[part.name]
        elif len(self.inputs) > 1:
            raise CompileError(
                f"preprocessing must be a mapping, such as {{{self.inputs[0].name!r}: Preprocessing(...), ...}}: there "
                f"are {len(self.inputs)} inputs"
            )
        if not isinstance(given, Preprocessing):
            raise CompileError(
                "preprocessing must be heinfer.formats.manifest.Preprocessing(divisor=..., mean=..., std=..., low=..., "
                f"high=...), not a {type(given).__name__}"
            )
        if misfit := given.misfit(part.shape):
            raise CompileError(f"the preprocessing of the {_whose(part, self.inputs, 'inputs')}: {misfit}")
        return given

    def labels(self, part: TensorPart) -> tuple[str, ...]:
        """Of an output; empty of one of values."""
        given = self.told.labels
        return given.get(part.name, ()) if isinstance(given, Mapping) else given

    @cached_property
    def is_classification(self) -> bool:
        """Whether only the label of the largest of all scores counts."""
        return len(self.outputs) == 1 and bool(self.labels(self.outputs[0]))

    @cached_property
    def ends(self) -> tuple[Array | float, Array | float]:
        """The smallest and the largest that each element of an input can be: numbers, where it is one for all."""
        spreads = [self.preprocessing(part).over(part.shape) for part in self.inputs]
        found = []
        for of in ([spread.low for spread in spreads], [spread.high for spread in spreads]):
            if len(of) == 1:
                found.append(of[0] if of[0].ndim else float(of[0]))
            else:
                whole = [np.broadcast_to(x, part.shape).reshape(-1) for x, part in zip(of, self.inputs, strict=True)]
                found.append(np.concatenate(whole))
        low, high = found
        shape = self.inputs[0].shape if len(self.inputs) == 1 else low.shape  # type: ignore[union-attr]
        if isinstance(low, float) and isinstance(high, float):
            return low, high
        return np.broadcast_to(low, shape), np.broadcast_to(high, shape)


def name_of(preprocessing: object) -> str:
    """What the only input is called where nobody names it."""
    return "values" if isinstance(preprocessing, Preprocessing) and preprocessing.kind == "values" else "image"


def _all_at_once(checks: Sequence[Callable[[], object]]) -> None:
    found: list[CompileError] = []
    for check in checks:
        try:
            check()
        except CompileError as error:
            if str(error) not in map(str, found):
                found.append(error)
    if len(found) == 1:
        raise found[0]
    if found:
        raise CompileError("; ".join(f"({number}) {error}" for number, error in enumerate(found, 1)))


def _output_parts(outputs: object, labels: object, shape: tuple[int, ...]) -> tuple[TensorPart, ...]:
    if outputs is None:
        (name, *others) = labels if isinstance(labels, Mapping) and labels else ("scores",)
        if others:
            raise CompileError(
                f"labels are of {_named([name, *others])}, and the network gives one tensor, of shape {shape}: say "
                "which part of it each is, such as outputs={'class': (3,), 'mask': (1, 28, 28)}, in the order in which "
                "they are concatenated"
            )
        outputs = {name: shape}
    if isinstance(outputs, tuple) and len(outputs) == 1:
        outputs = {outputs[0]: shape}
    if not isinstance(outputs, Mapping) or not outputs or len(outputs) > MOST_PARTS:
        raise CompileError(
            f"outputs must be a mapping of 1 to {MOST_PARTS} names to shapes, such as {{'class': (3,), 'mask': "
            f"(1, 28, 28)}}, not {outputs!r}"
        )
    for name, own in outputs.items():
        require_part_name(name, "output")
        if not isinstance(own, tuple) or not own or not all(isinstance(n, int) and n > 0 for n in own):
            raise CompileError(f"the shape of the output {name!r} must be a tuple of integers above 0, not {own!r}")
    parts = parts_of(outputs.items())
    size = sum(part.size for part in parts)
    if size != prod(shape):
        raise ShapeError(f"the outputs {_named(outputs)} have {size} elements, and the network gives {prod(shape)}")
    return parts


def _require_input(inputs: Array, shape: tuple[int, ...]) -> None:
    if inputs.shape[1:] != shape:
        raise ShapeError(f"calibration inputs have shape (batch, *{shape}), not {inputs.shape}")


def _require_part(found: Described, part: TensorPart, inputs: Inputs) -> None:
    preprocessing, own = found.preprocessing(part), inputs.of(part)
    whose = _whose(part, found.inputs, "calibration inputs")
    require_finite(own, whose)
    require_range(own, preprocessing, whose)


def _require_requirements(requirements: object) -> None:
    if not isinstance(requirements, Requirements):
        raise CompileError(
            f"requirements must be heinfer.planner.requirements.Requirements, such as "
            f"Requirements(limits=Limits(key_bytes=20e6)), not a {type(requirements).__name__}"
        )


def _require_words(name: object, model_version: object, metadata: object) -> None:
    if not isinstance(name, str) or not re.fullmatch(NAME, name):
        raise CompileError(
            f"name must be 1 to 64 of a-z, 0-9, '.', '_' and '-', a letter or digit first, not {name!r}: "
            "it stands in the service's addresses"
        )
    if not isinstance(model_version, str) or not re.fullmatch(VERSION, model_version):
        raise CompileError(
            "model_version must be a string of 1 to 64 letters, digits, '.', '_', '+' and '-', a letter or digit "
            f"first, not {model_version!r}"
        )
    told = metadata or {}
    if not isinstance(told, Mapping) or not all(isinstance(text, str) for entry in told.items() for text in entry):
        raise CompileError("metadata must be a mapping from strings to strings")


def _require_labels(labels: object, outputs: tuple[TensorPart, ...]) -> None:
    if not isinstance(labels, Mapping):
        if labels and isinstance(labels, tuple) and len(outputs) > 1:
            raise CompileError(
                f"labels must be a mapping, such as {{{outputs[0].name!r}: ('cat', 'dog')}}: the network has "
                f"{len(outputs)} outputs"
            )
        labels = {outputs[0].name: labels}
    sizes = {part.name: part.size for part in outputs}
    for name, own in labels.items():
        if name not in sizes:
            raise CompileError(f"there are labels of {name!r}, the outputs are {_named(sizes)}")
        count = _names_of_scores(own)
        if count not in {0, sizes[name]}:
            which = "the network" if len(outputs) == 1 else f"the output {name!r}"
            raise CompileError(f"{which} gives {sizes[name]} scores: give as many labels or none, not {count}")


def _names_of_scores(labels: object) -> int:
    if not isinstance(labels, tuple):
        raise CompileError(f"labels must be a tuple of strings, such as ('cat', 'dog'), not a {type(labels).__name__}")
    for label in labels:
        if not isinstance(label, str) or len(label) > MAX_LABEL or not label.isprintable():
            raise CompileError(
                f"labels must be strings of at most {MAX_LABEL} characters without control characters; "
                f"{label!r} is none"
            )
    return len(labels)


def _whose(part: TensorPart, parts: tuple[TensorPart, ...], of: str) -> str:
    return of if len(parts) == 1 else f"{of} {part.name!r}"


def _named(names: Iterable[object]) -> str:
    return ", ".join(map(repr, names))
