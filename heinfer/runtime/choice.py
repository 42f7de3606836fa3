"""Which backend runs a circuit: the native one where it is installed, else SEAL."""

from __future__ import annotations

from heinfer.backends.memory import Memory, memory_of
from heinfer.backends.native import NativeRing, native_problem, plan_circuit
from heinfer.circuit.ir import Circuit
from heinfer.ckks.parameters import Parameters
from heinfer.errors import SettingError
from heinfer.runtime.native import DEFAULTS, NativeOptions, NativeRuntime
from heinfer.runtime.runtime import Runtime

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


def open_runtime(
    circuit: Circuit,
    parameters: Parameters,
    input_level: int,
    input_scale: float,
    *,
    backend: str,
    options: NativeOptions = DEFAULTS,
) -> Runtime:
    """Encode a circuit's constants for a backend that :func:`choose_backend` named.

    Args:
        options: of the native backend; SEAL has none.

    Raises:
        InsecureParametersError: below 128 bits.
        CircuitError: when levels or scales of the circuit do not fit the parameters.
        SettingError: when encoded constants cannot be written where the options say.
    """
    if backend == "native":
        return NativeRuntime(circuit, NativeRing.secure(parameters), input_level, input_scale, options)
    from heinfer.ckks.seal import Ring  # noqa: PLC0415 - a worker on the native backend never loads SEAL
    from heinfer.runtime.tenseal import TensealRuntime  # noqa: PLC0415

    return TensealRuntime(circuit, Ring.secure(parameters), input_level, input_scale)


def runtime_memory(
    circuit: Circuit,
    parameters: Parameters,
    input_level: int,
    input_scale: float,
    *,
    backend: str,
    options: NativeOptions = DEFAULTS,
) -> Memory:
    """What :func:`open_runtime` and a run will take, before either; CircuitError as there."""
    if backend == "native":
        plan = plan_circuit(
            circuit, parameters, input_level, input_scale, most_constant_bytes=options.most_constant_bytes
        )
        return Memory(plan.constant_bytes, plan.run_bytes(options.threads))
    return memory_of(circuit, parameters, input_level, input_scale)
