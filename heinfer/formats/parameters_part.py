"""Ring degree and primes as a manifest carries them, each prime with its role."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from heinfer.ckks.parameters import MAX_PRIMES, Parameters
from heinfer.ckks.primes import is_prime
from heinfer.errors import NewerFormatError, ParameterError
from heinfer.formats.layout_part import Part

_Prime = Annotated[int, Field(ge=2, lt=1 << 31)]
_Primes = Annotated[tuple[_Prime, ...], Field(min_length=1, max_length=MAX_PRIMES)]
_Digits = Annotated[tuple[Annotated[int, Field(ge=1, le=MAX_PRIMES)], ...], Field(min_length=1, max_length=MAX_PRIMES)]


class ParametersPart(Part):
    """What a ring is.

    Attributes:
        ring_degree: N.
        data_primes: q_1 ... q_L; a rescale drops the last.
        special_primes: of key switching.
        digits: how many data primes each digit of a key switch has, from q_1 on (Han and Ki, CT-RSA 2020, section 3).

    Several special primes and digits of several primes have their place in the format; this heinfer computes with one
    special prime and digits of one prime.
    """

    ring_degree: Annotated[int, Field(ge=8, le=1 << 17)]
    data_primes: _Primes
    special_primes: _Primes
    digits: _Digits

    @classmethod
    def of(cls, parameters: Parameters) -> ParametersPart:
        """The part that describes parameters."""
        return cls(
            ring_degree=parameters.ring_degree,
            data_primes=parameters.data_primes,
            special_primes=(parameters.special_prime,),
            digits=(1,) * len(parameters.data_primes),
        )

    @model_validator(mode="after")
    def _covers_the_data_primes(self) -> ParametersPart:
        if sum(self.digits) != len(self.data_primes):
            raise ValueError("the digits must cover the data primes, each once")
        return self

    def to_parameters(self) -> Parameters:
        """The CKKS parameters.

        Raises:
            InsecureParametersError: below 128 bits of security.
            NewerFormatError: for what only a newer heinfer computes with.
            ParameterError: when they are malformed.
        """
        if len(self.special_primes) > 1 or max(self.digits) > 1:
            raise NewerFormatError(
                "the manifest wants key switching with several special primes, or digits of several primes: upgrade "
                "heinfer"
            )
        for prime in (*self.data_primes, *self.special_primes):
            if not is_prime(prime):
                raise ParameterError(f"{prime} is not a prime")
        return Parameters.from_primes(self.ring_degree, self.data_primes, self.special_primes[0])
