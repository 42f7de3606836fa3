"""Calibration: costs from probes, by a clock that does as told; tables on disk; times of circuits from tables."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from installed import INSTALLED
from tiny_model import INPUT_SCALE, TINY, tiny_bundle

from heinfer.circuit.counts import count_circuit
from heinfer.circuit.ir import Circuit, Kind, Op
from heinfer.circuit.typed import TypedCircuit
from heinfer.costs.prediction import by_kind, predict
from heinfer.costs.tables import HOISTED, OPERATIONS, CostTable, cost_table, load_costs, save_costs
from heinfer.errors import FormatError, PlanError, SettingError
from heinfer.measurement.benches import BACKENDS, COMMON_RING_DEGREES, RING_DEGREES, open_bench, require_measurable
from heinfer.measurement.machine import describe_machine
from heinfer.measurement.measure import Calibration
from heinfer.measurement.probes import INPUTS, probes
from heinfer.measurement.tenseal import TensealBench
from heinfer.planner.parameters import deepest_parameters

MICROSECONDS = {
    Kind.INPUT: 3,
    Kind.ADD: 10,
    Kind.ROTATE: 700,
    Kind.MULTIPLY_PLAIN: 30,
    Kind.MULTIPLY: 50,
    Kind.RELINEARIZE: 650,
    Kind.RESCALE: 90,
    Kind.DROP_LEVEL: 2,
}
"""At level 0; level l takes l + 1 times as long."""
ENCODING = 80
SHARED = 300
"""What a rotation less takes that shares the digits of another."""


class MadeUpBench:
    """A backend whose operations take what MICROSECONDS says, by a clock of its own."""

    backend = "made-up"
    parameters = TINY
    steps = (1, 2, 3)

    def __init__(self, disturbance=lambda _run, _level: 1, *, hoists=False):
        self.now = 0.0
        self.hoists = hoists
        self.runs = 0
        self._disturbance = disturbance

    def clock(self):
        return self.now

    def encrypt(self, count, level, scale):
        self.now += 1  # must not be counted as anything
        return [None] * count

    def encode(self, typed):
        self.now += 1e-6 * ENCODING * len(typed.circuit.constants)
        return typed.circuit, typed.input_level

    def run(self, program, inputs):
        circuit, level = program
        assert len(inputs) == circuit.inputs
        self.runs += 1
        spent = sum(MICROSECONDS[op.kind] * (level + 1 if op.args else 1) for op in circuit.ops)
        hoisted = sum(op.hoist >= 0 for op in circuit.ops)
        spent -= SHARED * (level + 1) * (hoisted - 1) if hoisted else 0
        self.now += 1e-6 * spent * self._disturbance(self.runs, level)


def calibrated(bench, sweeps=1):
    calibration = Calibration(bench, bench.clock)
    for _ in range(sweeps):
        assert list(calibration.sweep()) == list(range(calibration.levels))
    return calibration.table()


def a_table(degree=8192, **changes):
    rows = {name: tuple((place + 1) * (level + 1) / 8 for level in range(3)) for place, name in enumerate(OPERATIONS)}
    return CostTable("made-up", degree, rows | changes, "a machine", "2026-01-02")


# Measurement ---------------------------------------------------------------------------------------


def test_a_table_has_the_time_of_one_operation_at_each_level():
    table = calibrated(MadeUpBench())
    assert (table.backend, table.ring_degree, table.levels) == ("made-up", TINY.ring_degree, TINY.top_level + 1)
    once = {"rotation": 700, "hma": 40, "square": 50, "relinearize": 650, "rescale": 90, "drop_level": 2, "add": 10}
    for name, microseconds in once.items():
        expected = [microseconds * (level + 1) / 1000 for level in range(table.levels)]
        if name in {"rescale", "drop_level"}:
            expected[0] = 0
        assert table.milliseconds[name] == pytest.approx(expected), name
    assert table.milliseconds["encode"] == pytest.approx([ENCODING / 1000] * table.levels)
    assert set(table.milliseconds) == set(OPERATIONS)


def test_a_backend_that_hoists_has_a_row_for_further_rotations_of_one_value(tmp_path):
    table = calibrated(MadeUpBench(hoists=True))
    assert table.milliseconds.keys() - set(OPERATIONS) == {HOISTED}
    assert table.milliseconds[HOISTED] == pytest.approx([0.4, 0.8, 1.2])
    assert table.milliseconds["rotation"] == pytest.approx([0.7, 1.4, 2.1])
    assert table(HOISTED, 5) == pytest.approx(4 * table(HOISTED, 2))
    save_costs([table], tmp_path / "costs.json")
    assert load_costs(tmp_path / "costs.json")[0].milliseconds[HOISTED] == (0.4, 0.8, 1.2)
    assert a_table()(HOISTED, 1) == a_table()("rotation", 1)


def test_the_first_of_the_rotations_of_one_value_pays_for_the_digits():
    ops = [Op(Kind.INPUT, input=0), *(Op(Kind.ROTATE, (0,), step=step, hoist=0) for step in (1, 2, 3))]
    circuit = Circuit(16, (*ops, Op(Kind.ROTATE, (1,), step=1)), (3, 4))
    table = calibrated(MadeUpBench(hoists=True))
    typed = TypedCircuit(circuit, TINY, 1, INPUT_SCALE)
    assert predict(typed.circuit, typed.levels, table) == pytest.approx((0, 1.4, 0.8, 0.8, 1.4))
    assert predict(typed.circuit, typed.levels, calibrated(MadeUpBench())) == pytest.approx((0, 1.4, 1.4, 1.4, 1.4))


@pytest.mark.skipif("native" not in INSTALLED, reason="heinfer-native is not built")
def test_the_native_backend_is_calibrated():
    calibration = Calibration(open_bench("native", 4096))
    assert list(calibration.sweep()) == [0, 1]
    table = calibration.table()
    assert table.backend == "native"
    assert 0 < table(HOISTED, 1) < table("rotation", 1)


def test_what_disturbs_a_few_runs_does_not_count():
    disturbed = calibrated(MadeUpBench(lambda run, _level: 20 if run % 11 == 0 else 1), sweeps=2)
    for name, times in calibrated(MadeUpBench()).milliseconds.items():
        assert disturbed.milliseconds[name] == pytest.approx(times), name


def test_a_level_takes_no_longer_than_the_one_above_it_took():
    times = calibrated(MadeUpBench(lambda _run, level: 9 if level == 0 else 1)).milliseconds["rotation"]
    assert times == pytest.approx([1.4, 1.4, 2.1])


def test_probes_are_dominated_by_their_kind_and_need_only_those_before_them():
    known: set[Kind] = set()
    for kind, circuit in probes(16, (1, 2, 3), lowest=False).items():
        known.add(kind)
        counts = Counter(op.kind for op in circuit.ops)
        assert set(counts) <= known
        spent = {k: n * MICROSECONDS[k] for k, n in counts.items()}
        assert max(spent, key=spent.get) == kind or kind is Kind.DROP_LEVEL
        assert circuit.inputs == INPUTS
        assert TypedCircuit(circuit, TINY, 1, 2.0**12).types
    assert known == set(MICROSECONDS)


def test_probes_repeat_no_plaintext_and_use_every_key():
    found = probes(16, (1, 2, 3, 5, 8), lowest=True)
    assert found[Kind.ROTATE].steps() == (1, 2, 3, 5, 8)
    used = [op.constant for op in found[Kind.MULTIPLY_PLAIN].ops if op.constant >= 0]
    assert sorted(set(used)) == sorted(used) == list(range(len(found[Kind.MULTIPLY_PLAIN].constants)))
    assert not {Kind.RESCALE, Kind.DROP_LEVEL} & set(found)


def test_the_tenseal_backend_itself_runs_the_probes():
    bench = TensealBench(TINY, (1, 2))
    for level in range(TINY.top_level + 1):
        inputs = bench.encrypt(INPUTS, level, 2.0**12)
        for circuit in probes(TINY.slots, bench.steps, lowest=level == 0).values():
            program = bench.encode(TypedCircuit(circuit, TINY, level, 2.0**12))
            bench.run(program, inputs)
            assert program.executed == count_circuit(circuit)


def test_the_tenseal_backend_is_calibrated():
    calibration = Calibration(open_bench("tenseal", 4096))
    for _ in calibration.sweep():
        pass
    table = calibration.table()
    for name, times in table.milliseconds.items():
        positive = times[1:] if name in {"rescale", "drop_level"} else times
        assert len(times) == 2
        assert min(positive) > 0, name
    assert table.machine == describe_machine()


@pytest.mark.parametrize("degree", RING_DEGREES)
def test_a_ring_is_measured_at_every_level_that_is_secure(degree):
    parameters = deepest_parameters(degree)
    assert parameters.log_qp <= parameters.security_limit < parameters.log_qp + 26
    assert max(parameters.primes).bit_length() == 30


def test_keys_are_as_many_as_no_cache_holds_but_two_at_least(monkeypatch):
    made = {}
    monkeypatch.setitem(BACKENDS, "made-up", lambda parameters, steps: made.update({parameters.ring_degree: steps}))
    for degree in RING_DEGREES:
        open_bench("made-up", degree)
    assert {degree: len(steps) for degree, steps in made.items()} == {4096: 8, 8192: 8, 16384: 2, 32768: 2, 65536: 2}


def test_what_cannot_be_measured_is_refused_with_what_can():
    with pytest.raises(SettingError, match="'abacus' cannot be measured; there are native, tenseal"):
        open_bench("abacus", 4096)
    with pytest.raises(SettingError, match=r"N = 2048 .* use one of 4096, 8192, 16384, 32768"):
        require_measurable("tenseal", [4096, 2048])


# Prediction ----------------------------------------------------------------------------------------


def test_the_time_of_a_circuit_is_the_sum_of_its_operations_at_their_levels():
    ops = (
        Op(Kind.INPUT, input=0),
        Op(Kind.ROTATE, (0,), step=1),
        Op(Kind.MULTIPLY_PLAIN, (1,), constant=0, scale=2.0),
        Op(Kind.ADD_PLAIN, (2,), constant=0),
        Op(Kind.RESCALE, (3,)),
        Op(Kind.MULTIPLY, (4, 4)),
        Op(Kind.RELINEARIZE, (5,)),
        Op(Kind.DROP_LEVEL, (6,)),
        Op(Kind.ADD, (7, 7)),
    )
    circuit = Circuit(8, ops, (8,), (np.ones(8),))
    cost = a_table()
    expected = [
        0,
        cost("rotation", 2),
        cost("hma", 2) - cost("add", 2),
        cost("add", 2),
        cost("rescale", 2),
        cost("square", 1),
        cost("relinearize", 1),
        cost("drop_level", 1),
        cost("add", 0),
    ]
    spent = predict(circuit, (2, 2, 2, 2, 1, 1, 1, 0, 0), cost)
    assert spent == pytest.approx(expected)
    assert by_kind(circuit, spent)["rotate"] == cost("rotation", 2)
    assert sum(by_kind(circuit, spent).values()) == pytest.approx(sum(spent))


def test_a_sum_of_products_takes_one_hma_a_term_but_for_the_first_addition():
    circuit = probes(8, (1,), lowest=True)[Kind.MULTIPLY_PLAIN]
    cost = a_table()
    terms = len(circuit.constants)
    total = sum(predict(circuit, TypedCircuit(circuit, TINY, 0, 1.0).levels, cost))
    assert total == pytest.approx(terms * cost("hma", 0) - cost("add", 0))


def test_a_calibrated_table_predicts_what_it_was_not_measured_on():
    bundle = tiny_bundle(idle_rotations=3)
    bench = MadeUpBench()
    table = calibrated(bench)
    levels = bundle.typed.levels
    true = sum(
        MICROSECONDS[op.kind] * (levels[op.args[0]] + 1) for op in bundle.circuit.ops if op.kind is not Kind.INPUT
    )
    assert sum(predict(bundle.circuit, bundle.typed.levels, table)) == pytest.approx(true / 1000)


# Tables --------------------------------------------------------------------------------------------


def test_tables_survive_a_file(tmp_path):
    tables = (a_table(4096), a_table(8192))
    save_costs(tables, tmp_path / "costs.json")
    assert load_costs(tmp_path / "costs.json") == tables
    assert len((tmp_path / "costs.json").read_text().splitlines()) < 40  # a row is a line


def test_a_table_of_ones_own_is_used_in_place_of_the_shipped_one(tmp_path):
    path = tmp_path / "costs.json"
    save_costs([a_table(4096), replace(a_table(8192), machine="the other")], path)
    cost = cost_table(8192, "made-up", path)
    assert (cost("rotation", 1), cost.machine) == (0.25, "the other")
    assert cost_table(16384, "made-up", path)("rotation", 1) == pytest.approx(0.25 * 2 * 15 / 14)
    with pytest.raises(PlanError, match=r"no cost table for backend 'tenseal'; there are \['made-up'\]"):
        cost_table(8192, "tenseal", path)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_shipped_tables_cover_every_common_ring_at_every_level(backend):
    shipped = {table.ring_degree: table for table in load_costs() if table.backend == backend}
    assert set(shipped) == set(COMMON_RING_DEGREES)
    for degree, table in shipped.items():
        assert {len(times) for times in table.milliseconds.values()} == {deepest_parameters(degree).top_level + 1}
        assert table.machine


def test_above_the_table_key_switches_grow_with_the_square_of_the_primes_and_the_rest_with_them():
    cost = a_table()
    for name, factor in (("rotation", 4), ("relinearize", 4), ("add", 2), ("rescale", 2)):
        assert cost(name, 5) == pytest.approx(factor * cost(name, 2))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda file: file | {"format": 2}, "format"),
        (lambda file: file | {"more": 1}, "more"),
        (lambda file: {"format": 1}, "tables"),
        (lambda file: with_row(file, "rotation", [1.0, -1.0]), "tables.0.milliseconds.rotation.1"),
        (lambda file: with_row(file, "rotation", [1.0, float("nan")]), "tables.0.milliseconds.rotation.1"),
        (lambda file: with_row(file, "rotation", []), "tables.0.milliseconds.rotation"),
        (lambda file: with_row(file, "rotation", [1.0]), "N = 8192: its rows must have equally many levels"),
        (lambda file: with_row(file, "bootstrap", [1.0]), "rows rotation, hma"),
        (lambda file: without_row(file, "add"), "rows rotation, hma"),
    ],
)
def test_a_file_that_is_no_cost_table_is_refused_with_what_is_wrong(tmp_path, change, words):
    path = tmp_path / "costs.json"
    save_costs([a_table()], path)
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(FormatError, match=r"costs\.json is no cost table .*heinfer calibrate --out") as refused:
        load_costs(path)
    assert words in str(refused.value)


def with_row(file, name, times):
    file["tables"][0]["milliseconds"][name] = times
    return file


def without_row(file, name):
    del file["tables"][0]["milliseconds"][name]
    return file


@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff\xfe", b"[]"])
def test_a_file_of_something_else_is_refused(tmp_path, content):
    (tmp_path / "costs.json").write_bytes(content)
    with pytest.raises(FormatError, match=r"costs\.json"):
        load_costs(tmp_path / "costs.json")
    with pytest.raises(FormatError, match=r"missing\.json cannot be read"):
        load_costs(tmp_path / "missing.json")
