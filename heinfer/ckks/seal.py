"""The border to Microsoft SEAL (through ``tenseal.sealapi``): contexts, and objects as bytes in memory.

The bindings have no type stubs; everything untyped of them stays behind the names of this file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from tenseal import sealapi

from heinfer.ckks.parameters import Parameters
from heinfer.ckks.security import require_128_bit
from heinfer.errors import BackendError
from heinfer.system import scratch_file

SealObject: TypeAlias = Any
"""An object of the library; which class it is, the names around it say."""

LIBRARY_VERSION: tuple[int, int] = (
    sealapi.Serialization.SEALHeader().version_major,
    sealapi.Serialization.SEALHeader().version_minor,
)
"""SEAL's major and minor version; it loads no bytes that name another (serialization.cpp)."""


SEAL_LARGEST_RING = 32768
"""The largest ring degree in SEAL's own table of security (util/hestdparms.h)."""


@dataclass(frozen=True)
class Ring:
    """Parameters with the library's context for them.

    Construct through :meth:`secure`: no other way that is not a test's checks the security of the parameters.
    """

    parameters: Parameters
    context: SealObject

    @classmethod
    def secure(cls, parameters: Parameters) -> Ring:
        """Open a ring that is 128-bit secure by our table, and by SEAL's as far as that reaches.

        Raises:
            InsecureParametersError: by our table.
            BackendError: when SEAL refuses the parameters.
        """
        require_128_bit(parameters.ring_degree, parameters.primes)
        levels = sealapi.SEC_LEVEL_TYPE
        known_to_seal = parameters.ring_degree <= SEAL_LARGEST_RING  # it takes what it does not know for insecure
        return cls(parameters, build_context(parameters, levels.TC128 if known_to_seal else levels.NONE))


def build_context(parameters: Parameters, security_level: SealObject) -> SealObject:
    """Build SEAL's context at the given level of its own security check."""
    with library_errors("accept the CKKS parameters"):
        chosen = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.CKKS)
        chosen.set_poly_modulus_degree(parameters.ring_degree)
        chosen.set_coeff_modulus([sealapi.Modulus(prime) for prime in parameters.primes])
        context = sealapi.SEALContext(chosen, True, security_level)
    if not context.parameters_set():
        raise BackendError(f"SEAL refuses the CKKS parameters: {context.parameters_error_message()}")
    return context


@contextmanager
def library_errors(purpose: str) -> Iterator[None]:
    """Turn the library's exceptions into BackendError("SEAL failed to {purpose}"); its own text stays the cause."""
    try:
        yield
    except (ValueError, RuntimeError, IndexError, MemoryError) as error:
        raise BackendError(f"SEAL failed to {purpose}") from error


def parms_words(parameters: Parameters, primes: Sequence[int]) -> list[int]:
    """SEAL's id of a prime chain as the four words that the bindings take."""
    return list(struct.unpack("<4Q", parameters.parms_id(primes)))


def galois_element(parameters: Parameters, step: int) -> int:
    """Galois element of a rotation by `step` slots to the left: 3^step mod 2N (SEAL, util/galois.cpp)."""
    return pow(3, step, 2 * parameters.ring_degree)


def to_bytes(thing: SealObject) -> bytes:
    """Save an object of the library; it knows only paths, so the bytes go through a file, on Linux one in memory."""
    with scratch_file() as (file, path):
        with library_errors("save an object"):
            thing.save(path)
        return file.readall()


def from_bytes(empty: SealObject, context: SealObject, data: bytes | bytearray | memoryview) -> SealObject:
    """Load bytes into an empty object of the library and return it.

    SEAL's own checks are not enough for bytes from the network: only bytes that this process made may come here.

    Raises:
        BackendError: when SEAL refuses the bytes.
    """
    with scratch_file() as (file, path):
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) :]
        with library_errors("load an object"):
            empty.load(context, path)
    return empty
