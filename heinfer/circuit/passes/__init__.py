"""Passes over circuits: each keeps what the circuit computes; key_set.py may add rotations to save keys."""

from heinfer.circuit.passes.common_subexpressions import merge_common_subexpressions
from heinfer.circuit.passes.dead_code import remove_dead_code
from heinfer.circuit.passes.hoisting import mark_hoisting
from heinfer.circuit.passes.scales import Scales, assign_scales, choose_scales, input_bits

__all__ = [
    "Scales",
    "assign_scales",
    "choose_scales",
    "input_bits",
    "mark_hoisting",
    "merge_common_subexpressions",
    "remove_dead_code",
]
