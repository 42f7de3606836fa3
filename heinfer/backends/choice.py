"""Which backend runs a circuit: the native one where it is installed, else SEAL."""

from __future__ import annotations

from heinfer.backends.memory import Memory, memory_of
from heinfer.backends.native import DEFAULTS, NativeOptions, NativeProgram, NativeRing, native_plan, native_problem
from heinfer.backends.runtime import RingHandle, Runtime
from heinfer.circuit.typed import TypedCircuit
from heinfer.ckks.parameters import Parameters
from heinfer.errors import SettingError

BACKENDS = ("native", "tenseal")
"""Those that compute on ciphertexts, the preferred one first."""


def without_native() -> str:
    """One line on what the lack of the native backend costs, and what mends it."""
    return (
        f"{native_problem()}: SEAL evaluates, about eight times slower. "
        "Where a C++ compiler is, `make setup` or `pip install ./native` builds it."
    )


def choose_backend(wanted: str | None = None) -> str:
    """The backend that is wanted, or the fastest that is installed.

    Raises:
        SettingError: when there is no such backend, or it is not installed, or built for another heinfer.
    """
    if wanted is None:
        return "tenseal" if native_problem() else "native"
    if wanted not in BACKENDS:
        raise SettingError(f"there is no backend {wanted!r}; there are {', '.join(BACKENDS)}")
    if wanted == "native" and native_problem():
        raise SettingError(f"the native backend is wanted, but {without_native()}")
    return wanted


def open_ring(parameters: Parameters, backend: str) -> RingHandle:
    """A ring of a backend. What has been loaded by one runtime serves others of the same ring.

    Raises:
        InsecureParametersError: below 128 bits.
    """
    if backend == "native":
        return NativeRing.secure(parameters)
    from heinfer.ckks.seal import Ring  # noqa: PLC0415 - a worker on the native backend never loads SEAL

    return Ring.secure(parameters)


def open_runtime(
    typed: TypedCircuit, *, backend: str, options: NativeOptions = DEFAULTS, ring: RingHandle = None
) -> Runtime:
    """Encode a circuit's constants for a backend that :func:`choose_backend` named.

    Args:
        options: of the native backend; SEAL has none.
        ring: that :func:`open_ring` has opened of the circuit's parameters; one of its own when None.

    Raises:
        InsecureParametersError: below 128 bits.
        CircuitError: when levels or scales of the circuit do not fit the parameters.
        SettingError: when encoded constants cannot be written where the options say.
    """
    ring = open_ring(typed.parameters, backend) if ring is None else ring
    if backend == "native":
        return NativeProgram(typed, ring, options)
    from heinfer.backends.seal.program import TensealProgram  # noqa: PLC0415

    return TensealProgram(typed, ring)


def runtime_memory(typed: TypedCircuit, *, backend: str, options: NativeOptions = DEFAULTS) -> Memory:
    """What :func:`open_runtime` and a run will take, before either; CircuitError as there."""
    if backend == "native":
        plan = native_plan(typed, most_constant_bytes=options.most_constant_bytes)
        return Memory(plan.constant_bytes, plan.run_bytes(options.threads))
    return memory_of(typed)
