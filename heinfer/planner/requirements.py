"""What a plan shall be cheap in, and what it must not exceed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from math import inf
from pathlib import Path

from heinfer.brief import brief_repr
from heinfer.circuit.precision import WANTED_BITS
from heinfer.ckks.parameters import Parameters
from heinfer.costs.tables import KEY_SWITCHES, CostTable, cost_table
from heinfer.errors import SettingError
from heinfer.planner.parameters import RESCALE_BITS, SPECIAL_BITS


class Objective(StrEnum):
    """What the search minimises."""

    TIME = "time"
    THROUGHPUT = "throughput"  # time an image, in batches of at most the required number
    KEY_SWITCHES = "key switches"


@dataclass(frozen=True)
class Prices:
    """The price of everything a plan needs, in one unit: milliseconds, or key switches.

    Attributes:
        operations: price of every operation at every level.
        key: what one more Galois key may cost: keys are uploaded, stored and streamed.
        upload: what one more input ciphertext may cost.
    """

    operations: CostTable
    key: float
    upload: float


@dataclass(frozen=True)
class Limits:
    """What a plan must not exceed: bytes, infinite for no limit, and the time that few keys may take.

    Attributes:
        key_bytes: evaluation keys together, as they cross the network.
        upload_bytes: the ciphertexts of one request, as they cross the network.
        memory_bytes: keys and encoded plaintexts of one model and client on a server, in SEAL's words.
        slowdown: times the predicted time without a limit on keys that a plan within it may take: rotations are
            composed of those that have a key, and a few keys too few may make thousands of them.
    """

    key_bytes: float = inf
    upload_bytes: float = inf
    memory_bytes: float = inf
    slowdown: float = 4.0


NO_LIMITS = Limits()


@dataclass(frozen=True)
class Needs:
    """What a plan takes, in the units of :class:`Limits`."""

    key_bytes: int
    upload_bytes: int
    memory_bytes: int

    def exceeded(self, limits: Limits) -> str | None:
        """Name of the first limit that is exceeded."""
        for need in fields(self):
            if getattr(self, need.name) > getattr(limits, need.name):
                return need.name
        return None


MILLISECONDS_A_KEY = 0.4
"""What a key is worth when nobody says how scarce they are."""
MILLISECONDS_A_MEGABYTE = 80.0
"""An upload at 100 Mbit/s."""

_TIE_BREAK = 1e-5


@dataclass(frozen=True)
class Requirements:
    """What a user asks of a plan.

    Attributes:
        objective: what the plan shall be cheap in.
        limits: what it must not exceed.
        batch: images that are evaluated together, a power of two; with throughput as the objective, the most.
        key_price: milliseconds that one more evaluation key is worth: more for fewer keys.
        backend: whose cost table predicts the time.
        costs: a file of `heinfer calibrate` with other tables than the shipped.
        headroom: bits that stay free for scores beyond those of calibration; None for as many as leave the predicted
            precision at its bound (heinfer.circuit.precision).
        precision_bits: of the scores of the worst of 200 images, predicted. A model with fewer is refused; wider primes
            are tried before that. Those below 8 are warned of. 0 refuses none but what drowns.
        prime_bits: of every data prime at least; compiling raises them where precision asks for it.
    """

    objective: Objective = Objective.TIME
    limits: Limits = NO_LIMITS
    batch: int = 1
    key_price: float = MILLISECONDS_A_KEY
    backend: str = "tenseal"
    costs: Path | None = None
    headroom: int | None = None
    precision_bits: float = WANTED_BITS
    prime_bits: int = RESCALE_BITS

    __repr__ = brief_repr

    def __post_init__(self) -> None:
        if self.batch < 1 or self.batch & (self.batch - 1):
            raise SettingError(f"a batch holds a power of two of images, not {self.batch}")
        if self.key_price < 0:
            raise SettingError(f"the price of a key must not be negative, got {self.key_price}")
        if self.headroom is not None and not (isinstance(self.headroom, int) and self.headroom >= 0):
            raise SettingError(
                f"headroom is a whole number of bits, or None for as many as can be, not {self.headroom!r}"
            )
        if not 0 <= self.precision_bits < inf:
            raise SettingError(f"precision is asked for in bits, 0 or more, not {self.precision_bits!r}")
        if self.prime_bits not in range(RESCALE_BITS, SPECIAL_BITS + 1):
            raise SettingError(f"primes have {RESCALE_BITS} to {SPECIAL_BITS} bits, not {self.prime_bits!r}")


DEFAULT = Requirements()


def table_for(requirements: Requirements, parameters: Parameters) -> CostTable:
    """The milliseconds that a user wants plans to be made with."""
    return cost_table(parameters.ring_degree, requirements.backend, requirements.costs)


def prices(requirements: Requirements, parameters: Parameters, level: int) -> Prices:
    """Return the prices under an objective for inputs at a level; a count is broken at ties by the time."""
    table = table_for(requirements, parameters)
    upload = ciphertext_bytes(parameters, level) / 1e6 * MILLISECONDS_A_MEGABYTE
    if requirements.objective is not Objective.KEY_SWITCHES:
        return Prices(table, requirements.key_price, upload)
    counted = {
        operation: tuple(1.0 if operation in KEY_SWITCHES else _TIE_BREAK * time for time in times)
        for operation, times in table.milliseconds.items()
    }
    return Prices(replace(table, milliseconds=counted), _TIE_BREAK * requirements.key_price, _TIE_BREAK * upload)


def ciphertext_bytes(parameters: Parameters, level: int) -> int:
    """Bytes of one fresh ciphertext on the wire: packed residues of one half, the other half is a seed."""
    return _row_bytes(parameters, parameters.primes_at(level))


def key_bytes(parameters: Parameters) -> int:
    """Bytes of one evaluation key on the wire, for use at every level: most keys are for lower ones and smaller.

    A digit for every data prime, each modulo all primes, half a seed.
    """
    return len(parameters.data_primes) * _row_bytes(parameters, parameters.primes)


def _row_bytes(parameters: Parameters, primes: Sequence[int]) -> int:
    return sum(parameters.ring_degree * prime.bit_length() // 8 for prime in primes)


def plaintext_bytes(parameters: Parameters, level: int) -> int:
    """Bytes of one encoded plaintext in SEAL."""
    return 8 * parameters.ring_degree * (level + 1)
