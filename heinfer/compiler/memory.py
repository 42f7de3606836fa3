"""The memory that compiling takes, known from the plan before any constant is made."""

from __future__ import annotations

from heinfer.circuit.interpret import inputs_at_once
from heinfer.circuit.noise import GROUPS_AT_ONCE
from heinfer.planner.plan import LinearStep, Plan
from heinfer.system import peak_bytes, resident_bytes

_DOUBLE = 8
_OF_AN_OPERATION = 2_000
"""Bytes, in the two or three circuits that passes hold at once, with its types and bounds."""
_OPERATIONS_OF_A_PRODUCT = 2
"""And a sum: all others are few beside them."""
_INDEX = 0.5
"""What a bundle has for every constant, in parts of it: 32 bits for each double."""
_XZ = 94 << 20
"""That the encoder takes at preset 6, as xz(1) says; of less to compress than its dictionary, so many times that:"""
_XZ_OF_A_BYTE = 12


def predicted_peak(plan: Plan, inputs: int) -> int:
    """The most bytes that this process will have had once the plan is lowered, calibrated and written as a bundle.

    Constants that are one number for all slots, which a batch has, are counted as if they were not.

    Args:
        inputs: how many calibration inputs there are.
    """
    return max(peak_bytes(), resident_bytes() + _to_compile(plan, inputs))


def _to_compile(plan: Plan, inputs: int) -> int:
    """The bytes that lowering, calibrating and writing will take at most."""
    vector = _DOUBLE * plan.parameters.slots
    linear = [step.plan for step in plan.steps if isinstance(step, LinearStep)]
    products = sum(layer.counts.hma for layer in linear)
    sums = sum(layer.counts.targets for layer in linear)
    constants = vector * (products + sums)
    alive = max(layer.problem.source.ciphertexts + layer.counts.babies + layer.counts.groups for layer in linear)
    at_once = max(min(inputs, inputs_at_once(plan.parameters.slots)), GROUPS_AT_ONCE)
    by_slot = plan.input.ciphertexts * -(-inputs // plan.batch) + 4 * sums  # power and peaks, of maps and of squares
    calibration = vector * (alive * at_once + by_slot)
    index = int(_INDEX * constants)
    # The index, its bytes and the blob; then the blob while xz works; then what was written is read.
    writing = max(3 * index, index + min(_XZ, _XZ_OF_A_BYTE * index), index + constants)
    operations = _OF_AN_OPERATION * _OPERATIONS_OF_A_PRODUCT * products
    return operations + constants + max(calibration, writing)
