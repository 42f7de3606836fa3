"""Reports: what a request costs, predicted as the calibration predicts it, of one image or of a batch."""

from io import StringIO

import pytest
from rich.console import Console
from samples import sample_bundle
from small_model import small_model
from tiny_model import tiny_bundle

from heinfer.backends import choose_backend
from heinfer.compiler.model import CompiledModel
from heinfer.compiler.report import report
from heinfer.costs.prediction import predict
from heinfer.costs.tables import OPERATIONS, CostTable, cost_table, save_costs
from heinfer.errors import FormatError
from heinfer.planner.requirements import Requirements
from heinfer_cli.report_table import print_report


@pytest.fixture(scope="module")
def single() -> CompiledModel:
    return small_model()


@pytest.fixture(scope="module")
def several() -> CompiledModel:
    return small_model(Requirements(batch=8))


def printed(model: CompiledModel, width: int = 100) -> str:
    text = StringIO()
    print_report(model.report, Console(file=text, width=width))
    return text.getvalue()


def test_the_time_is_that_of_the_operations_that_run(single):
    typed = single.bundle.typed
    milliseconds = predict(typed.circuit, typed.levels, cost_table(single.plan.parameters.ring_degree))
    facts = report(single.bundle, "tenseal")
    assert facts.milliseconds == pytest.approx(sum(milliseconds))
    assert sum(layer.milliseconds for layer in facts.layers) == pytest.approx(sum(milliseconds))


def test_the_cost_shown_is_that_of_the_backend_which_runs(single):
    facts = single.report
    assert facts.backend == choose_backend()
    assert facts.milliseconds == facts.predicted[facts.backend]
    for backend in ("tenseal", "native"):
        assert report(single.bundle, backend).milliseconds == facts.predicted[backend]
    other = next(backend for backend in facts.predicted if backend != facts.backend)
    assert f"{facts.predicted[other]:.0f} on {other}" in printed(single)


def test_an_addition_is_paid_once(tmp_path):
    """The table's "hma" has the addition in it, which is an operation of its own in the circuit."""
    rows = dict.fromkeys(OPERATIONS, (0.0, 0.0)) | {"hma": (5.0, 5.0), "add": (1.0, 1.0)}
    costs = tmp_path / "costs.json"
    save_costs([CostTable("tenseal", 4096, rows, "a machine", "a date")], costs)
    facts = report(sample_bundle(), costs=costs)  # a product, an addition, a constant
    assert facts.milliseconds == (5 - 1) + 1 + 1
    assert [layer.milliseconds for layer in facts.layers] == [6, 0]


def test_a_file_that_is_no_cost_table_is_refused(tmp_path):
    with pytest.raises(FormatError, match=r"missing\.json cannot be read"):
        report(tiny_bundle(), costs=tmp_path / "missing.json")


def test_a_batch_shares_its_time(single, several):
    one, eight = single.report, several.report
    assert (one.batch, eight.batch) == (1, 8)
    assert one.milliseconds_an_image == one.milliseconds
    assert eight.milliseconds_an_image == eight.milliseconds / 8 < one.milliseconds


def test_the_table_says_what_an_image_of_a_batch_takes(single, several):
    text, facts = printed(several), several.report
    assert f"small: 8 images together on {facts.backend}" in text
    for share in (
        f"{facts.milliseconds_an_image:.1f} ms, {facts.upload_bytes / 8000:.1f} kB up",
        f"predicted; {facts.upload_bytes / 1000:.1f} kB up",
    ):
        assert share in text
    assert f"small: one image on {facts.backend}" in printed(single)
    assert f"an image         {single.report.milliseconds:.0f} ms" in printed(single)


def test_the_table_says_how_large_values_get(single):
    text, facts = printed(single), single.report
    assert "how large values get" in text
    for layer in facts.layers:
        worst = "unbounded" if layer.worst_case is None else f"{layer.worst_case:.3g}"
        assert f"{layer.headroom:.1f} │ {worst:>10} │" in text
    assert f"from {facts.capacity:.3g} on they wrap around" in text
    assert facts.layers[0].worst_case >= facts.layers[0].largest
    assert max(len(line.rstrip()) for line in printed(single, 80).splitlines()) <= 80
