"""Circuit to instructions: sums of products become one, rotations of one input share digits, and so on.

What is computed stays the same word for word, but for rotations that share digits.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

from heinfer.backends.native.instructions import (
    Constant,
    Division,
    Instruction,
    Product,
    Relinearization,
    Rotations,
    Sum,
    Target,
)
from heinfer.circuit.ir import Kind, Op
from heinfer.circuit.typed import TypedCircuit

MOST_OPERANDS = 64
"""Of one sum: all of them are in memory at once."""

MOST_ADDENDS = 8
"""Those of them that are no products: they would have been forgotten one after the other."""

MOST_HOISTED = 16
"""Rotations that share digits: their results, and sums as large again, are in memory at once."""

_LINEAR = frozenset({Kind.ADD, Kind.ADD_PLAIN, Kind.MULTIPLY_PLAIN, Kind.DROP_LEVEL})


def fuse(typed: TypedCircuit, *, exact: bool) -> list[Instruction]:
    """Instructions that compute a circuit; ``exact``: they share no digits, so that every word is SEAL's."""
    return _Fusion(typed, exact).instructions()


@dataclass(frozen=True)
class _Form:
    """A sum that is not computed yet."""

    factors: tuple[tuple[int, Constant], ...] = ()
    addends: tuple[int, ...] = ()
    plains: tuple[Constant, ...] = ()

    def __add__(self, other: _Form) -> _Form:
        return _Form(self.factors + other.factors, self.addends + other.addends, self.plains + other.plains)

    @property
    def is_small(self) -> bool:
        operands = len(self.factors) + len(self.addends) + len(self.plains)
        return operands <= MOST_OPERANDS and len(self.addends) <= MOST_ADDENDS


class _Fusion:
    def __init__(self, typed: TypedCircuit, exact: bool) -> None:
        self._circuit, self._types, self._exact = typed.circuit, typed.types, exact
        self._uses = Counter(self._circuit.outputs)
        self._user: dict[int, int] = {}  # the last; the only one where it matters
        for number, op in self._circuit:
            self._uses.update(op.args)
            self._user.update(dict.fromkeys(op.args, number))
        self._hoisted = self._hoisting_groups()
        self._forms: dict[int, _Form] = {}
        self._done: list[Instruction] = []

    def instructions(self) -> list[Instruction]:
        for number, op in self._circuit:
            if op.kind in _LINEAR:
                self._take_linear(number, op)
            elif op.kind is not Kind.INPUT:
                self._done += self._others(number, op)
        return self._done

    # Rotations and products

    def _hoisting_groups(self) -> dict[int, list[int]]:
        """First rotation of a group that shares digits -> the group; other members -> nothing."""
        groups: dict[int, list[int]] = defaultdict(list)
        for number, op in self._circuit:
            if op.kind is Kind.ROTATE and op.hoist >= 0 and not self._exact:
                groups[op.hoist].append(number)
        hoisted: dict[int, list[int]] = {}
        for group in groups.values():
            for start in range(0, len(group), MOST_HOISTED):
                part = group[start : start + MOST_HOISTED]
                if len(part) > 1:
                    hoisted |= {part[0]: part} | {other: [] for other in part[1:]}
        return hoisted

    def _others(self, number: int, op: Op) -> list[Instruction]:
        match op.kind:
            case Kind.ROTATE if number in self._hoisted:
                group = self._hoisted[number]
                targets = tuple(Target(self._circuit.ops[member].step, member) for member in group)
                return [Rotations(op.args[0], targets, exact=False)] if group else []
            case Kind.ROTATE if self._is_absorbed(number):
                return []
            case Kind.ROTATE:
                return [Rotations(op.args[0], (Target(op.step, number),))]
            case Kind.MULTIPLY if self._only_user(number) is Kind.RELINEARIZE:
                return []
            case Kind.MULTIPLY:
                return [Product(number, op.args[0], op.args[1], relinearized=False)]
            case Kind.RELINEARIZE:
                product = self._circuit.ops[op.args[0]]
                if product.kind is Kind.MULTIPLY and self._only_user(op.args[0]) is Kind.RELINEARIZE:
                    return [Product(number, product.args[0], product.args[1], relinearized=True)]
                return [Relinearization(number, op.args[0])]
            case _:
                assert op.kind is Kind.RESCALE
                return [Division(number, op.args[0])]

    def _only_user(self, value: int) -> Kind | None:
        """Kind of the one operation that reads a value; None when there are others, or it leaves the circuit."""
        if self._uses[value] != 1 or value not in self._user:
            return None
        return self._circuit.ops[self._user[value]].kind

    # Rotations that are added to something

    def _absorbed_argument(self, op: Op) -> int | None:
        """The rotation that an addition is made part of."""
        if op.kind is not Kind.ADD or any(self._types[a].size != 2 for a in op.args):
            return None
        for argument in sorted(op.args, reverse=True):
            rotation = self._circuit.ops[argument]
            if rotation.kind is Kind.ROTATE and argument not in self._hoisted and self._uses[argument] == 1:
                return argument
        return None

    def _is_absorbed(self, rotation: int) -> bool:
        return (
            self._only_user(rotation) is Kind.ADD
            and self._absorbed_argument(self._circuit.ops[self._user[rotation]]) == rotation
        )

    # Sums

    def _take_linear(self, number: int, op: Op) -> None:
        rotation = self._absorbed_argument(op)
        if rotation is not None:
            (after,) = (a for a in op.args if a != rotation)
            turned = self._circuit.ops[rotation]
            self._done.append(Rotations(turned.args[0], (Target(turned.step, number, after),)))
            return
        form = self._form(op)
        if not form.is_small:
            for argument in op.args:
                if argument in self._forms:
                    self._emit(argument, self._forms.pop(argument))
            form = self._form(op)
        if self._is_inner(number):
            self._forms[number] = form
        else:
            self._emit(number, form)
            for argument in op.args:
                self._forms.pop(argument, None)

    def _is_inner(self, number: int) -> bool:
        """Whether a sum is only a part of another."""
        if self._only_user(number) not in {Kind.ADD, Kind.ADD_PLAIN}:
            return False
        return self._absorbed_argument(self._circuit.ops[self._user[number]]) is None

    def _form(self, op: Op) -> _Form:
        match op.kind:
            case Kind.MULTIPLY_PLAIN:
                return _Form(factors=((op.args[0], Constant(op.constant, op.scale)),))
            case Kind.ADD_PLAIN:
                scale = self._types[op.args[0]].scale
                return self._operand(op.args[0]) + _Form(plains=(Constant(op.constant, scale),))
            case Kind.ADD:
                return self._operand(op.args[0]) + self._operand(op.args[1])
            case _:
                return _Form(addends=op.args)

    def _operand(self, value: int) -> _Form:
        return self._forms.get(value, _Form(addends=(value,)))

    def _emit(self, number: int, form: _Form) -> None:
        # Those of three polynomials come first: the library skips the others for the third one.
        factors = tuple(sorted(form.factors, key=lambda factor: -self._types[factor[0]].size))
        self._done.append(Sum(number, factors, form.addends, form.plains))
