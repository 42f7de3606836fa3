"""The manifest: what a client needs of a compiled model, and nothing of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from math import log2, prod
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from heinfer.ckks.parameters import Parameters
from heinfer.ckks.primes import is_prime
from heinfer.errors import InsecureParametersError, ManifestError, NewerFormatError, ParameterError, SettingError
from heinfer.formats.layout_part import LayoutPart, LayoutRun, Part

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

MANIFEST_VERSION: Final = 2
MAX_MANIFEST_BYTES = 1 << 22

NAME: Final = r"^[a-z0-9][a-z0-9._-]{0,63}$"
VERSION: Final = r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$"
MAX_LABEL: Final = 64
MAX_EXPONENT: Final = 256
"""Of two, by which scores may have been scaled."""

_MAX_PRIMES = 64
_MAX_CHANNELS = 1024


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("control characters are not allowed")
    return text


_Prime = Annotated[int, Field(ge=2, lt=1 << 31)]
_Level = Annotated[int, Field(ge=0, lt=_MAX_PRIMES)]
_Scale = Annotated[float, Field(gt=0)]
_Label = Annotated[str, Field(max_length=MAX_LABEL), AfterValidator(_printable)]
_Channels = Field(min_length=1, max_length=_MAX_CHANNELS)


class ParametersPart(Part):
    """Ring degree and primes, in the order of heinfer.ckks.parameters.Parameters."""

    ring_degree: Annotated[int, Field(ge=8, le=1 << 17)]
    data_primes: Annotated[tuple[_Prime, ...], Field(min_length=1, max_length=_MAX_PRIMES)]
    special_prime: _Prime


class Preprocessing(Part):
    """How pixels become the network's input: clip((pixel / divisor - mean) / std, low, high).

    `divisor` is for integer images (255 for 8 bits); float images are taken as pixel / divisor already, in 0..1.
    mean and std have one entry a channel (the first axis of an input of three axes; other inputs have one channel).

    Raises:
        SettingError: names the first argument that is missing or wrong.
    """

    divisor: Annotated[float, Field(gt=0)]
    mean: Annotated[tuple[float, ...], _Channels]
    std: Annotated[tuple[Annotated[float, Field(gt=0)], ...], _Channels]
    low: float
    high: float

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
        return self


_PREPROCESSING = {
    "divisor": "a number above 0, such as 255 for pixels of 8 bits",
    "mean": "a tuple of one number a channel, such as (0.1307,)",
    "std": "a tuple of one number above 0 a channel, such as (0.3081,)",
    "low": "a number, the smallest value of an input",
    "high": "a number, the largest value of an input",
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


class InputPart(Part):
    """The image, or batch of images, as the client sends it."""

    preprocessing: Preprocessing
    layout: LayoutPart
    level: _Level
    scale: _Scale


class OutputPart(Part):
    """The scores as the server returns them: what is decoded, times 2^exponent.

    `labels` names each score of an image, or is empty.
    """

    layout: LayoutPart
    level: _Level
    scale: _Scale
    exponent: Annotated[int, Field(ge=-MAX_EXPONENT, le=MAX_EXPONENT)] = 0
    labels: tuple[_Label, ...]


class KeysPart(Part):
    """Evaluation keys the plan uses, each with the highest level at which it does: a key has no more primes than that.

    Attributes:
        steps: of the rotations (slots to the left, ascending).
        step_levels: one a step.
        relinearization_level: None when nothing is relinearized.
    """

    steps: tuple[Annotated[int, Field(ge=1)], ...]
    step_levels: tuple[_Level, ...]
    relinearization_level: _Level | None

    @classmethod
    def of(cls, levels: Mapping[int, int]) -> KeysPart:
        """From the level of every key by its step, 0 for relinearization."""
        steps = tuple(sorted(levels.keys() - {0}))
        return cls(steps=steps, step_levels=tuple(levels[step] for step in steps), relinearization_level=levels.get(0))

    @property
    def levels(self) -> Mapping[int, int]:
        """The level of every key by its step, 0 for relinearization, in ascending order of steps."""
        first = {} if self.relinearization_level is None else {0: self.relinearization_level}
        return first | dict(zip(self.steps, self.step_levels, strict=True))

    @model_validator(mode="after")
    def _ascend(self) -> KeysPart:
        if len(self.steps) != len(self.step_levels):
            raise ValueError("there must be one level a step")
        if any(step >= after for step, after in zip(self.steps, self.steps[1:], strict=False)):
            raise ValueError("steps must ascend, each once")
        return self


class Manifest(Part):
    """The client's part of a bundle. Its parameters are 128-bit secure: no manifest can be made with others.

    Attributes:
        batch: images that one request holds; when there are several, they are the first axis of both layouts.

    Raises:
        InsecureParametersError: when its parameters are below 128 bits.
        ParameterError: when they are malformed.
        pydantic.ValidationError: when its parts are not consistent.
    """

    format: Literal["heinfer-manifest"] = "heinfer-manifest"
    version: Literal[2] = MANIFEST_VERSION
    name: Annotated[str, Field(pattern=NAME)]
    model_version: Annotated[str, Field(pattern=VERSION)]
    parameters: ParametersPart
    batch: Annotated[int, Field(ge=1)] = 1
    input: InputPart
    output: OutputPart
    keys: KeysPart

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
        bound = max(abs(self.input.preprocessing.low), abs(self.input.preprocessing.high))
        modulus_bits = sum(log2(prime) for prime in parameters.primes_at(self.input.level))
        if log2(bound) + log2(self.input.scale) >= modulus_bits - 1:
            raise ValueError("the input's range at its scale exceeds half the modulus")
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

    def to_parameters(self) -> Parameters:
        """The CKKS parameters.

        Raises:
            InsecureParametersError: below 128 bits of security.
            ParameterError: when they are malformed.
        """
        part = self.parameters
        for prime in (*part.data_primes, part.special_prime):
            if not is_prime(prime):
                raise ParameterError(f"{prime} is not a prime")
        return Parameters.from_primes(part.ring_degree, part.data_primes, part.special_prime)

    def to_bytes(self) -> bytes:
        """Canonical JSON: equal manifests have equal bytes."""
        return self.model_dump_json().encode()


class _Head(BaseModel):
    """As much of a manifest as every version of the format has."""

    model_config = ConfigDict(strict=True)

    format: Literal["heinfer-manifest"]
    version: Annotated[int, Field(ge=1, lt=1 << 16)]


def parse_manifest(data: bytes) -> Manifest:
    """Read a manifest from an untrusted source.

    Raises:
        ManifestError: when it is malformed, inconsistent or too large.
        NewerFormatError: when a newer heinfer wrote it.
        InsecureParametersError: when its parameters are below 128 bits.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise ManifestError(f"a manifest has at most {MAX_MANIFEST_BYTES} bytes, not {len(data)}")
    try:
        version = _Head.model_validate_json(data).version
        if version < MANIFEST_VERSION:
            raise ManifestError(
                f"the manifest has format {version}, this heinfer reads {MANIFEST_VERSION}: compile the model again"
            )
        if version > MANIFEST_VERSION:
            raise NewerFormatError(
                f"the manifest has format {version}, this heinfer reads {MANIFEST_VERSION}: upgrade heinfer"
            )
        return Manifest.model_validate_json(data)
    except InsecureParametersError:
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
