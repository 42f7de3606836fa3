"""Dead code: operations and constants that no output needs."""

from __future__ import annotations

from dataclasses import replace

from heinfer.circuit.ir import Circuit, Kind, Op


def remove_dead_code(circuit: Circuit) -> Circuit:
    """Return the circuit without unused operations; inputs stay, because clients send them."""
    live = set(circuit.outputs)
    for number in range(len(circuit.ops) - 1, -1, -1):
        if number in live:
            live |= set(circuit.ops[number].args)
    live |= {number for number, op in circuit if op.kind is Kind.INPUT}
    used = sorted({circuit.ops[n].constant for n in live} - {-1})
    constant_number = {old: new for new, old in enumerate(used)} | {-1: -1}
    renamed: dict[int, int] = {}
    ops: list[Op] = []
    for number in sorted(live):
        op = circuit.ops[number]
        renamed[number] = len(ops)
        ops.append(replace(op, args=tuple(renamed[a] for a in op.args), constant=constant_number[op.constant]))
    outputs = tuple(renamed[o] for o in circuit.outputs)
    return replace(circuit, ops=tuple(ops), outputs=outputs, constants=tuple(circuit.constants[c] for c in used))
