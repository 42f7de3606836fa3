"""Common subexpressions: equal operations on equal arguments are computed once.

Constants are equal when they are the same one: were their values compared, counts would depend on weights.
"""

from __future__ import annotations

from dataclasses import replace

from heinfer.circuit.ir import Circuit, Kind, Op


def merge_common_subexpressions(circuit: Circuit) -> Circuit:
    """Return the circuit in which no operation is computed twice."""
    known: dict[Op, int] = {}
    ops: list[Op] = []
    renamed: list[int] = []
    for _, op in circuit:
        args = tuple(renamed[a] for a in op.args)
        if op.kind in (Kind.ADD, Kind.MULTIPLY):
            args = tuple(sorted(args))
        same = replace(op, args=args, layer=-1)
        if same not in known:
            known[same] = len(ops)
            ops.append(replace(same, layer=op.layer))
        renamed.append(known[same])
    outputs = tuple(renamed[o] for o in circuit.outputs)
    return replace(circuit, ops=tuple(ops), outputs=outputs)
