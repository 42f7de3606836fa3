"""The manifest: what a client needs of a compiled model, and nothing of its weights."""

from __future__ import annotations

from math import ldexp, log2, prod
from sys import float_info
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from heinfer.ckks.parameters import Parameters
from heinfer.errors import InsecureParametersError, ManifestError, NewerFormatError, ParameterError
from heinfer.formats.bindings import keys_binding
from heinfer.formats.keys_part import PART_NAME, KeysPart, Level
from heinfer.formats.layout_part import LayoutPart, LayoutRun, Part
from heinfer.formats.parameters_part import ParametersPart
from heinfer.formats.preprocessing import Preprocessing

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

MANIFEST_VERSION: Final = 3
MAX_MANIFEST_BYTES = 1 << 22

NAME: Final = r"^[a-z0-9][a-z0-9._-]{0,63}$"
VERSION: Final = r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$"
MAX_LABEL: Final = 64
MAX_EXPONENT: Final = 256
"""Of two, by which scores may have been scaled."""


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("control characters are not allowed")
    return text


_Scale = Annotated[float, Field(ge=float_info.min)]
"""A normal number: SEAL before 4.4 takes smaller ones, and divides by them."""
_SEVERAL = Field(min_length=1, max_length=16)
_Label = Annotated[str, Field(max_length=MAX_LABEL), AfterValidator(_printable)]


class InputPart(Part):
    """One input, or a batch of it, as the client sends it."""

    name: Annotated[str, Field(pattern=PART_NAME)]
    preprocessing: Preprocessing
    layout: LayoutPart
    level: Level
    scale: _Scale


class OutputPart(Part):
    """One output as the server returns it: its scores are what is decoded, times 2^exponent.

    Attributes:
        kind: "classification" when only the order of an image's scores counts, "values" when they themselves do.
        range: largest |score| that the scales were chosen for; what the parameters can represent may be more
            (:attr:`Manifest.capacity`).
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


class Manifest(Part):
    """The client's part of a bundle. Its parameters are 128-bit secure: no manifest can be made with others.

    Several inputs, outputs and key sets have their place in the format; this heinfer computes with one of each.

    Attributes:
        batch: images that one request holds; when there are several, they are the first axis of all layouts.

    Raises:
        InsecureParametersError: when its parameters are below 128 bits.
        NewerFormatError: for what only a newer heinfer computes with.
        ParameterError: when the parameters are malformed.
        pydantic.ValidationError: when its parts are not consistent.
    """

    format: Literal["heinfer-manifest"] = "heinfer-manifest"
    version: Literal[3] = MANIFEST_VERSION
    name: Annotated[str, Field(pattern=NAME)]
    model_version: Annotated[str, Field(pattern=VERSION)]
    parameters: ParametersPart
    batch: Annotated[int, Field(ge=1)] = 1
    inputs: Annotated[tuple[InputPart, ...], _SEVERAL]
    outputs: Annotated[tuple[OutputPart, ...], _SEVERAL]
    key_sets: Annotated[tuple[KeysPart, ...], _SEVERAL]

    def _about(self) -> str:
        shapes = f"{self.input.layout.shape} to {self.output.layout.shape}"
        return f"{self.name} {self.model_version}: {shapes}, N={self.parameters.ring_degree}"

    @model_validator(mode="after")
    def _is_of_one_input_and_output(self) -> Manifest:
        for what, parts in (("inputs", self.inputs), ("outputs", self.outputs), ("key sets", self.key_sets)):
            if len(parts) > 1:
                raise NewerFormatError(f"the manifest has {len(parts)} {what}, this heinfer takes one: upgrade heinfer")
        return self

    @property
    def input(self) -> InputPart:
        return self.inputs[0]

    @property
    def output(self) -> OutputPart:
        return self.outputs[0]

    @property
    def keys(self) -> KeysPart:
        return self.key_sets[0]

    @model_validator(mode="after")
    def _describes_each_image(self) -> Manifest:
        for what, part in (("input", self.input), ("output", self.output)):
            shape = part.layout.shape
            if self.batch > 1 and (len(shape) < 2 or shape[0] != self.batch):
                raise ValueError(f"the {what}'s layout must have the batch as its first axis, and another")
        channels = self.input_shape[0] if len(self.input_shape) == 3 else 1
        if len(self.input.preprocessing.mean) != channels:
            raise ValueError(f"mean and std must have {channels} entries, one a channel of the input")
        scores = prod(self.output_shape)
        if self.output.labels and len(self.output.labels) != scores:
            raise ValueError(f"there must be {scores} labels, one a score, or none")
        return self

    @model_validator(mode="after")
    def _is_consistent(self) -> Manifest:
        parameters = self.to_parameters()
        for what, part in (("input", self.input), ("output", self.output)):
            if part.level > parameters.top_level:
                raise ValueError(f"the {what}'s level must be in 0..{parameters.top_level}")
            if part.layout.slots != parameters.slots:
                raise ValueError(f"the {what}'s layout must have {parameters.slots} slots, half the ring degree")
        if self.output.level > self.input.level:
            raise ValueError("the output's level cannot be above the input's")
        if self.keys.steps and self.keys.steps[-1] >= parameters.slots:
            raise ValueError(f"rotation steps must be in 1..{parameters.slots - 1}")
        if max(self.keys.levels.values(), default=0) > self.input.level:
            raise ValueError("no key can be used above the input's level")
        bound = self.input.preprocessing.largest
        modulus_bits = sum(log2(prime) for prime in parameters.primes_at(self.input.level))
        if log2(bound) + log2(self.input.scale) >= modulus_bits - 1:
            raise ValueError("the input's range at its scale exceeds half the modulus")
        if self.output.range > self.capacity:
            raise ValueError("the output's range at its scale exceeds half the modulus")
        return self

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return self._of_one(self.input.layout)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of one image's scores."""
        return self._of_one(self.output.layout)

    def _of_one(self, layout: LayoutPart) -> tuple[int, ...]:
        return layout.shape if self.batch == 1 else layout.shape[1:]

    @property
    def capacity(self) -> float:
        """The |score| at which what is decrypted wraps round: half the modulus at the output's level and scale."""
        output = self.output
        return ldexp(self.to_parameters().capacity(output.level, output.scale), output.exponent)

    def to_parameters(self) -> Parameters:
        """The CKKS parameters; raises what ParametersPart.to_parameters does."""
        return self.parameters.to_parameters()

    def to_bytes(self) -> bytes:
        """Canonical JSON: equal manifests have equal bytes."""
        return self.model_dump_json().encode()

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
        if version < MANIFEST_VERSION:
            raise ManifestError(
                f"the manifest has format {version}, this heinfer reads {MANIFEST_VERSION}: upgrade the service"
            )
        if version > MANIFEST_VERSION:
            raise NewerFormatError(
                f"the manifest has format {version}, this heinfer reads {MANIFEST_VERSION}: upgrade heinfer"
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
