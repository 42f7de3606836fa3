"""From an affine map between two layouts to the diagonals that evaluate it.

A diagonal (input ciphertext, output ciphertext, shift) multiplies the input rotated left by ``shift``
with a plaintext and adds it to the output: row slot p reads input slot p + shift. After the diagonals
come *reductions*: v + rot(v, r) for each reduction r, so that output slot t is the sum of the rows t + g over
all subset sums g of the reductions. A row may therefore hold a partial sum of any output in whose cone it
lies, and which row adds which term is a free choice, as is which copy of an element is read.

Choosing the diagonals is a hitting-set problem: every term (output, input) must be added by exactly
one diagonal, and few diagonals shall do. Solved greedily; ties go to shifts that continue the pattern
of those already chosen, because a pattern is what makes baby and giant steps cheap.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from heinfer.brief import brief_repr
from heinfer.layout.layout import ZERO, Layout
from heinfer.network.join import Index, distinct
from heinfer.network.linear_map import LinearMap
from heinfer.network.pairs import Vector
from heinfer.planner.kernel.accumulators import Accumulators
from heinfer.planner.kernel.adders import Adders, Outline
from heinfer.planner.kernel.gains import Gains, Pattern
from heinfer.planner.kernel.incidence import Incidence

_AT_A_LOOK = 64
"""Of so many giants that add equally much one is taken before the gains are looked at again."""


@dataclass(frozen=True, order=True)
class Diagonal:
    """Which input ciphertext, rotated how far to the left, goes to which output ciphertext."""

    source: int
    target: int
    shift: int


@dataclass(frozen=True, eq=False)
class DiagonalProblem:
    """An affine map, the layouts it maps between and the reductions after the diagonals.

    Attributes:
        map: the affine map.
        source: where its inputs are.
        target: where its outputs shall be; FREE slots may hold anything.
        reductions: rotations by which partial sums are added up, in order.
    """

    map: LinearMap
    source: Layout
    target: Layout
    reductions: tuple[int, ...] = ()

    __repr__ = brief_repr

    @cached_property
    def reduction_offsets(self) -> tuple[int, ...]:
        """All subset sums of the reductions: the rows t + g that slot t adds up."""
        sums = [0]
        for reduction in self.reductions:
            sums += [s + reduction for s in sums]
        return tuple(sorted(s % self.source.slots for s in sums))

    @cached_property
    def modulus(self) -> int:
        """Shifts count modulo this: the period of the source, and of rows under cyclic reductions."""
        cyclic = self.source.slots
        for reduction in sorted(self.reductions, reverse=True):
            if 2 * reduction == cyclic:
                cyclic = reduction
        return min(self.source.period, cyclic)

    @cached_property
    def accumulators(self) -> Accumulators:
        """The rows that partial sums may live in; PlanError when one would count twice."""
        return Accumulators.of(self.target, self.reduction_offsets)

    @cached_property
    def row_elements(self) -> Index:
        """(ciphertexts, slots) the output that each row holds partial sums of, -1 for none."""
        row = self.accumulators.row
        return np.where(row >= 0, self.accumulators.element[row], -1)

    def forget(self) -> None:
        """Give back the memory of what can be found again."""
        for name in ("accumulators", "row_elements", "_first_cell", "_adders", "_incidence"):
            self.__dict__.pop(name, None)

    def terms(self, diagonal: Diagonal) -> tuple[Index, Index, Index]:
        """Return (rows p, the inputs that they read, their cells) of all terms that a diagonal could add.

        A cell is a term, of an accumulator and an entry of its output's row: a number below ``cells``.
        """
        element = self.row_elements[diagonal.target]
        read = np.roll(self.source.index[diagonal.source], -diagonal.shift)
        rows = np.flatnonzero((element >= 0) & (read >= 0))
        ranks = self.map.ranks(element[rows], read[rows])
        rows, ranks = rows[ranks >= 0], ranks[ranks >= 0]
        return rows, read[rows], self._first_cell[self.accumulators.row[diagonal.target, rows]] + ranks

    @property
    def cells(self) -> int:
        """How many terms there are."""
        return int(self._first_cell[-1])

    @cached_property
    def _first_cell(self) -> Index:
        return np.append(0, np.cumsum(self.map.reads[self.accumulators.element]))

    @cached_property
    def _adders(self) -> Adders:
        return Adders(self.map, self.accumulators, self.source, self.target.ciphertexts, self.modulus)

    @cached_property
    def _outline(self) -> Outline:
        return self._adders.outline()

    @cached_property
    def _incidence(self) -> Incidence:
        return self._adders.incidence()

    @property
    def at_least(self) -> int:
        """A bound on the number of diagonals, exact where no term has a choice."""
        return self._outline.at_least

    def choose(self, babies: tuple[int, ...] = (0,), tolerance: float = 1.0) -> DiagonalSet:
        """Choose few diagonals that add every term exactly once: translates of a set of babies, as few as will do.

        Args:
            babies: shifts that cost no further giant step; (0,) chooses diagonals one by one.
            tolerance: translates that add at least this share of what the best one adds count as its equals,
                so that borders of an image do not break a pattern.
        """
        numbers = self._outline.forced
        if numbers is None:
            chosen = self._incidence.without_redundant(self._greedy(babies, tolerance))
            numbers = self._incidence.numbers[chosen]
        pair, shift = np.divmod(numbers, self.modulus)
        source, target = np.divmod(pair, self.target.ciphertexts)
        # None of an empty target's outputs has a term: a diagonal of zeros, at a shift in use, makes the ciphertext.
        empty = np.setdiff1d(np.arange(self.target.ciphertexts), target)
        at = shift[:1] if shift.size else np.zeros(1, dtype=np.int64)
        return DiagonalSet.ordered(
            self,
            np.append(source, np.zeros_like(empty)),
            np.append(target, empty),
            np.append(shift, np.repeat(at, empty.size)),
        )

    def _greedy(self, babies: tuple[int, ...], tolerance: float) -> list[int]:
        """Positions in the incidence of the diagonals that a greedy choice takes, in its order.

        One look at the gains takes some of those that are as good as the best, those first that continue the pattern
        best, if what was taken before leaves them as good; the more there are, the more.
        """
        incidence = self._incidence
        giants, members = self._translates(incidence.numbers, babies)
        gains = Gains(*incidence.terms_of(np.arange(incidence.cells)), members, incidence.numbers.size)
        shifts = giants % self.modulus
        is_open = np.ones(incidence.cells, dtype=bool)
        chosen: list[int] = []
        pattern = Pattern(self.modulus)
        while gains.left:
            least, equals = gains.near_best(tolerance)
            added: list[Index] = []
            order = np.argsort(-pattern.rank(shifts[equals]), kind="stable")
            for best in equals[order[: 1 + equals.size // _AT_A_LOOK]].tolist():
                numbers = members[members[:, best] < incidence.numbers.size, best].tolist()
                if added and self._opens(incidence, numbers, is_open) < least:
                    continue
                pattern.add(int(shifts[best]))
                for number in numbers:
                    cells = incidence.cells_of(number)
                    cells = cells[is_open[cells]]
                    if cells.size:
                        chosen.append(number)
                        is_open[cells] = False
                        added.append(cells)
            gains.subtract(*incidence.terms_of(np.concatenate(added)))
        return chosen

    def _opens(self, incidence: Incidence, numbers: list[int], is_open: NDArray[np.bool_]) -> int:
        """How many terms diagonals would add that none has added."""
        cells = (incidence.cells_of(number) for number in numbers)
        return sum(int(incidence.weight[some[is_open[some]]].sum()) for some in cells)

    def _translates(self, numbers: Index, babies: tuple[int, ...]) -> tuple[Index, Index]:
        """All diagonals g with a translate g + baby among ``numbers``, and where that is; beyond the end: nowhere."""
        pair, shift = np.divmod(numbers, self.modulus)
        giants = distinct(np.concatenate([pair * self.modulus + (shift - baby) % self.modulus for baby in babies]))
        pair, shift = np.divmod(giants, self.modulus)
        moved = np.stack([pair * self.modulus + (shift + baby) % self.modulus for baby in babies])
        places = np.searchsorted(numbers, moved)
        known = numbers[np.minimum(places, numbers.size - 1)] == moved if numbers.size else np.zeros(moved.shape, bool)
        return giants, np.where(known, places, numbers.size)


@dataclass(frozen=True, eq=False)
class DiagonalSet:
    """Diagonals that together add every term of a map exactly once, ascending.

    Attributes:
        source, target, shift: (diagonals,) those of each; shifts modulo ``problem.modulus``.
    """

    problem: DiagonalProblem
    source: Index
    target: Index
    shift: Index

    __repr__ = brief_repr

    @classmethod
    def of(cls, problem: DiagonalProblem, diagonals: Iterable[Diagonal]) -> Self:
        """Diagonals given one by one, in any order."""
        columns = np.array([(d.source, d.target, d.shift) for d in diagonals], dtype=np.int64).reshape(-1, 3)
        return cls.ordered(problem, *columns.T)

    @classmethod
    def ordered(cls, problem: DiagonalProblem, source: Index, target: Index, shift: Index) -> Self:
        """Diagonals given as columns, in any order."""
        order = np.lexsort((shift, target, source))
        return cls(problem, source[order], target[order], shift[order])

    def __len__(self) -> int:
        return self.shift.size

    @cached_property
    def diagonals(self) -> tuple[Diagonal, ...]:
        columns = (column.tolist() for column in (self.source, self.target, self.shift))
        return tuple(map(Diagonal, *columns))

    @cached_property
    def shifts(self) -> tuple[int, ...]:
        """Distinct ones, ascending."""
        return tuple(distinct(self.shift).tolist())

    def moved(self, offset: int) -> DiagonalSet:
        """The same diagonals for a target layout that is moved by so many slots."""
        problem = replace(self.problem, target=self.problem.target.shifted(offset))
        return DiagonalSet.ordered(problem, self.source, self.target, (self.shift - offset) % self.problem.modulus)

    def plaintexts(self, rotations: dict[int, int] | None = None) -> Iterator[tuple[Diagonal, Index]]:
        """Yield each diagonal with the input that each row reads by its plaintext, -1 for none: shape (slots,).

        Args:
            rotations: shift modulo the problem's modulus -> the rotation that realises it; itself by default.
        """
        added = np.zeros(self.problem.cells, dtype=bool)
        for diagonal in self.diagonals:
            shift = rotations[diagonal.shift] if rotations else diagonal.shift
            rows, reads, cells = self.problem.terms(Diagonal(diagonal.source, diagonal.target, shift))
            fresh = _is_first(cells) & ~added[cells]
            added[cells] = True
            vector = np.full(self.problem.target.slots, -1, dtype=np.int64)
            vector[rows[fresh]] = reads[fresh]
            yield diagonal, vector

    def values(self, diagonal: Diagonal, reads: Index) -> Vector:
        """The plaintext of a diagonal whose rows read these inputs, 0 for those that read none."""
        rows = np.flatnonzero(reads >= 0)
        values = np.zeros(reads.shape)
        values[rows] = self.problem.map.values(self.problem.row_elements[diagonal.target, rows], reads[rows])
        return values

    def result_layout(self) -> Layout:
        """Where the outputs are after the reductions, with ZERO and FREE told apart in the slots that were FREE."""
        touched = self.problem.accumulators.row >= 0
        reached = np.zeros_like(touched)
        for offset in self.problem.reduction_offsets:
            reached |= np.roll(touched, -offset, axis=1)
        index = self.problem.target.index
        complete = self.problem.accumulators.complete(index, self.problem.reduction_offsets)
        return Layout(self.problem.target.shape, np.where(index >= 0, index, np.where(reached, complete, ZERO)))


def _is_first(values: Index) -> NDArray[np.bool_]:
    """Whether no equal value comes before."""
    order = np.argsort(values, kind="stable")
    first = np.ones(values.size, dtype=bool)
    first[order[1:]] = values[order[1:]] != values[order[:-1]]
    return first
