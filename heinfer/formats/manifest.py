"""The manifest: what a client needs of a compiled model, and nothing of its weights."""

from __future__ import annotations

from math import ldexp, log2
from typing import Annotated, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from heinfer.ckks.parameters import Parameters
from heinfer.errors import InsecureParametersError, ManifestError, NewerFormatError, ParameterError
from heinfer.formats.bindings import keys_binding
from heinfer.formats.ends_part import (
    MOST_PARTS,
    InputPart,
    OutputPart,
    joint_layout,
    joint_shape,
    require_one_frame,
    titles,
    version_for,
)
from heinfer.formats.keys_part import KeysPart
from heinfer.formats.layout_part import LayoutPart, LayoutRun, Part
from heinfer.formats.parameters_part import ParametersPart
from heinfer.formats.preprocessing import Preprocessing
from heinfer.layout.layout import Layout
from heinfer.layout.parts import TensorPart, parts_of

__all__ = [
    "MANIFEST_VERSION",
    "MAX_MANIFEST_BYTES",
    "InputPart",
    "KeysPart",
    "LayoutPart",
    "LayoutRun",
    "Manifest",
    "OutputPart",
    "ParametersPart",
    "Preprocessing",
    "first_reason",
    "parse_manifest",
]

MANIFEST_VERSION: Final = 4
"""The newest; a manifest is of 3 where that can say it, so that older clients read it."""
_BEFORE: Final = 3
_NOT_YET: Final = {"inputs": {"__all__": {"preprocessing": {"features"}}}}
"""Fields that version 3 does not have."""
MAX_MANIFEST_BYTES = 1 << 22

NAME: Final = r"^[a-z0-9][a-z0-9._-]{0,63}$"
VERSION: Final = r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$"

_SEVERAL = Field(min_length=1, max_length=MOST_PARTS)


class Manifest(Part):
    """The client's part of a bundle. Its parameters are 128-bit secure: no manifest can be made with others.

    A network has one input and one output; where there are several of either, they are flattened and concatenated in
    their order, and their layouts are parts of one. Several key sets have their place in the format; this heinfer
    computes with one.

    Attributes:
        version: 4 where what it says needs that: several inputs or outputs, names of features, numbers an element.
        batch: images that one request holds; when there are several, they are the first axis of all layouts.

    Raises:
        InsecureParametersError: when its parameters are below 128 bits.
        NewerFormatError: for what only a newer heinfer computes with.
        ParameterError: when the parameters are malformed.
        pydantic.ValidationError: when its parts are not consistent.
    """

    format: Literal["heinfer-manifest"] = "heinfer-manifest"
    version: Literal[3, 4] = _BEFORE
    name: Annotated[str, Field(pattern=NAME)]
    model_version: Annotated[str, Field(pattern=VERSION)]
    parameters: ParametersPart
    batch: Annotated[int, Field(ge=1)] = 1
    inputs: Annotated[tuple[InputPart, ...], _SEVERAL]
    outputs: Annotated[tuple[OutputPart, ...], _SEVERAL]
    key_sets: Annotated[tuple[KeysPart, ...], _SEVERAL]

    def _about(self) -> str:
        shapes = f"{titles(self.input_parts)} to {titles(self.output_parts)}"
        return f"{self.name} {self.model_version}: {shapes}, N={self.parameters.ring_degree}"

    @model_validator(mode="after")
    def _is_of_one_key_set(self) -> Manifest:
        if len(self.key_sets) > 1:
            raise NewerFormatError(
                f"the manifest has {len(self.key_sets)} key sets, this heinfer takes one: upgrade heinfer"
            )
        return self

    @property
    def input(self) -> InputPart:
        """The only input; of several the first, whose ciphertexts, level and scale are those of all."""
        return self.inputs[0]

    @property
    def output(self) -> OutputPart:
        """The only output; of several the first, whose ciphertexts, level and scale are those of all."""
        return self.outputs[0]

    @property
    def keys(self) -> KeysPart:
        return self.key_sets[0]

    @model_validator(mode="after")
    def _describes_each_image(self) -> Manifest:
        named: list[tuple[str, InputPart | OutputPart]] = [("input", part) for part in self.inputs]
        for what, part in [*named, *(("output", part) for part in self.outputs)]:
            shape = part.layout.shape
            if self.batch > 1 and (len(shape) < 2 or shape[0] != self.batch):
                raise ValueError(f"the {what}'s layout must have the batch as its first axis, and another")
        for inside, own in zip(self.inputs, self.input_parts, strict=True):
            if misfit := inside.preprocessing.misfit(own.shape):
                raise ValueError(f"the preprocessing of {own.name}: {misfit}")
        for outside, own in zip(self.outputs, self.output_parts, strict=True):
            if outside.labels and len(outside.labels) != own.size:
                raise ValueError(f"there must be {own.size} labels, one a score, or none")
        return self

    @model_validator(mode="after")
    def _is_of_its_version(self) -> Manifest:
        if self.version < version_for(self.inputs, self.outputs, self.batch):
            raise ValueError(
                "several inputs or outputs, names of features and numbers for each element are of format 4, and this "
                f"manifest says that it is of {self.version}"
            )
        if self.version > _BEFORE and any(part.labels for part in self.outputs if part.kind == "values"):
            raise ValueError("labels name the classes of a classification, and not values")
        return self

    @model_validator(mode="after")
    def _is_consistent(self) -> Manifest:
        parameters = self.to_parameters()
        for what, part in (("input", self.input), ("output", self.output)):
            if part.level > parameters.top_level:
                raise ValueError(f"the {what}'s level must be in 0..{parameters.top_level}")
            if part.layout.slots != parameters.slots:
                raise ValueError(f"the {what}'s layout must have {parameters.slots} slots, half the ring degree")
        require_one_frame("inputs", self.inputs, self.batch)
        require_one_frame("outputs", self.outputs, self.batch)
        if self.output.level > self.input.level:
            raise ValueError("the output's level cannot be above the input's")
        if self.keys.steps and self.keys.steps[-1] >= parameters.slots:
            raise ValueError(f"rotation steps must be in 1..{parameters.slots - 1}")
        if max(self.keys.levels.values(), default=0) > self.input.level:
            raise ValueError("no key can be used above the input's level")
        modulus_bits = sum(log2(prime) for prime in parameters.primes_at(self.input.level))
        for part in self.inputs:
            if log2(part.preprocessing.largest) + log2(part.scale) >= modulus_bits - 1:
                raise ValueError("the input's range at its scale exceeds half the modulus")
        if any(part.range > self.capacity_of(part) for part in self.outputs):
            raise ValueError("the output's range at its scale exceeds half the modulus")
        return self

    @property
    def input_parts(self) -> tuple[TensorPart, ...]:
        """Name, shape and place of every input of one image."""
        return parts_of((part.name, self._of_one(part.layout)) for part in self.inputs)

    @property
    def output_parts(self) -> tuple[TensorPart, ...]:
        """Name, shape and place of every output of one image."""
        return parts_of((part.name, self._of_one(part.layout)) for part in self.outputs)

    @property
    def output_kinds(self) -> list[tuple[TensorPart, bool]]:
        """Every output of one image, and whether only the label of its largest score counts."""
        parts = zip(self.output_parts, self.outputs, strict=True)
        return [(own, part.kind == "classification") for own, part in parts]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image; of several inputs (n,), of all their elements."""
        return joint_shape(self.input_parts)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of one image's scores; of several outputs (n,), of all their elements."""
        return joint_shape(self.output_parts)

    def input_layout(self) -> Layout:
        """Of all inputs together, of one image or a batch: made anew each time."""
        return joint_layout(self.inputs, self.batch)

    def output_layout(self) -> Layout:
        """Of all outputs together, of one image or a batch: made anew each time."""
        return joint_layout(self.outputs, self.batch)

    def _of_one(self, layout: LayoutPart) -> tuple[int, ...]:
        return layout.shape if self.batch == 1 else layout.shape[1:]

    @property
    def decoded_capacity(self) -> float:
        """The |value| at which what is decoded wraps round: half the modulus at the outputs' level and scale."""
        return self.to_parameters().capacity(self.output.level, self.output.scale)

    def capacity_of(self, output: OutputPart) -> float:
        """The |score| at which an output wraps round."""
        return ldexp(self.decoded_capacity, output.exponent)

    def to_scores(self, decoded: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores (..., *output_shape) from what is decoded: times 2^exponent, of each output its own."""
        parts = zip(self.output_parts, self.outputs, strict=True)
        exponents = np.concatenate([np.full(own.size, part.exponent) for own, part in parts])
        scores: NDArray[np.float64] = np.ldexp(decoded, exponents.reshape(self.output_shape))
        return scores

    def to_parameters(self) -> Parameters:
        """The CKKS parameters; raises what ParametersPart.to_parameters does."""
        return self.parameters.to_parameters()

    def to_bytes(self) -> bytes:
        """Canonical JSON: equal manifests have equal bytes, those of a version the bytes that it has always had."""
        return self.model_dump_json(exclude=_NOT_YET if self.version == _BEFORE else None).encode()

    @property
    def keys_binding(self) -> bytes:
        """What its evaluation keys are bound to; see heinfer.formats.bindings."""
        return keys_binding(self.parameters, self.keys)


class _Head(BaseModel):
    """As much of a manifest as every version of the format has."""

    model_config = ConfigDict(strict=True)

    format: Literal["heinfer-manifest"]
    version: Annotated[int, Field(ge=1, lt=1 << 16)]


def parse_manifest(data: bytes) -> Manifest:
    """Read a manifest from an untrusted source.

    Raises:
        ManifestError: when it is malformed, inconsistent or too large.
        NewerFormatError: when a newer heinfer wrote it, or it wants what only a newer one computes with.
        InsecureParametersError: when its parameters are below 128 bits.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise ManifestError(f"a manifest has at most {MAX_MANIFEST_BYTES} bytes, not {len(data)}")
    try:
        version = _Head.model_validate_json(data).version
        if version < _BEFORE:
            raise ManifestError(
                f"the manifest has format {version}, this heinfer reads {_BEFORE} and {MANIFEST_VERSION}: upgrade the "
                "service"
            )
        if version > MANIFEST_VERSION:
            raise NewerFormatError(
                f"the manifest has format {version}, this heinfer reads up to {MANIFEST_VERSION}: upgrade heinfer"
            )
        return Manifest.model_validate_json(data)
    except (InsecureParametersError, NewerFormatError):
        raise
    except ParameterError as error:
        raise ManifestError(f"the manifest's parameters are malformed: {error}") from None
    except ValidationError as error:
        raise ManifestError(f"the manifest is malformed: {first_reason(error)}") from None


def first_reason(error: ValidationError) -> str:
    """Where and why a part is malformed, without a byte of the input: not even the name of an unknown field."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    unknown = first["type"] == "extra_forbidden"
    where = ".".join(str(part) for part in (first["loc"][:-1] if unknown else first["loc"]))
    return f"{where or 'as a whole'}: {first['msg'].removeprefix('Value error, ')}"
