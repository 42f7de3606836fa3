"""What an operator sees: metrics, readiness, logs, and documents that know of all of it."""

import json
import logging
import re
from pathlib import Path

import documented
import httpx
import numpy as np
import pytest
from asking import infer, registered
from gated import GatedWorker
from in_process import RunningService, running_service
from owner import Owner
from test_server import assert_problem
from tiny_model import tiny_bundle

from heinfer import errors
from heinfer.errors import FormatError, HeinferError, WorkerFailedError
from heinfer_server import settings
from heinfer_server.telemetry.logs import JsonFormatter
from heinfer_server.web import problems

ROOT = Path(__file__).parents[2]
OPERATION = (ROOT / "docs" / "operation.md").read_text()
WIRE = (ROOT / "docs" / "wire-format.md").read_text()
MODEL = tiny_bundle()
IMAGE = np.linspace(0, 1, 16).reshape(4, 4)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with running_service(tmp_path_factory.mktemp("bundles"), [MODEL], metrics_port=0) as service:
        yield service


@pytest.fixture(scope="module")
def owner() -> Owner:
    return Owner(MODEL)


def value(running: RunningService, name: str, **labels: str) -> float:
    running.portal.call(running.service.metrics.update)
    return running.service.metrics.registry.get_sample_value(f"heinfer_{name}", labels) or 0.0


# Metrics ---------------------------------------------------------------------------------------


def test_an_inference_is_counted_with_its_stages_and_bytes(running, http, owner):
    key_id = registered(http, owner.keys)
    counted = {"method": "POST", "route": "/infer", "status": "200"}
    before = value(running, "requests_total", **counted), value(running, "received_bytes_total")
    sent = value(running, "sent_bytes_total")
    body = owner.inputs(IMAGE)
    answers = [infer(http, key_id, body) for _ in range(2)]
    assert value(running, "requests_total", **counted) == before[0] + 2
    assert value(running, "received_bytes_total") == before[1] + 2 * len(body)
    assert value(running, "sent_bytes_total") == sent + 2 * len(answers[0].content)
    for stage in ("body", "check", "wait", "worker", "keys", "evaluation", "total"):
        assert value(running, "stage_seconds_count", stage=stage) >= 2
    assert value(running, "key_loads_total", result="miss") >= 1
    assert value(running, "key_loads_total", result="hit") >= 1
    assert value(running, "stored_keys") == 1
    assert value(running, "stored_key_bytes") == len(owner.keys)
    assert value(running, "workers_ready") == 1
    assert value(running, "evaluations_inside") == 0
    assert value(running, "event_loop_lag_seconds_count") > 0


def test_errors_are_counted_by_code_and_paths_of_others_making_make_no_series(running, http):
    before = value(running, "errors_total", code="unknown-keys")
    assert infer(http, "0" * 64, b"").status_code == 404
    assert value(running, "errors_total", code="unknown-keys") == before + 1
    for path in ("/a", "/b", "/c"):
        http.get(path)
    assert http.request("INVENTED", "/healthz").status_code == 405
    text = metrics_text(running)
    assert 'heinfer_requests_total{method="",route="/healthz",status="405"}' in text
    assert "INVENTED" not in text
    assert 'heinfer_requests_total{method="",route="",status="404"}' in text
    assert '"/a"' not in text


def test_a_failed_worker_is_counted_and_so_is_the_second_try(running, http, owner, monkeypatch):
    key_id = registered(http, owner.keys)
    worker = running.worker
    evaluate, errors_left = worker.evaluate, [WorkerFailedError("died")]

    async def fail_first(*arguments: object) -> object:
        if errors_left:
            raise errors_left.pop()
        return await evaluate(*arguments)

    monkeypatch.setattr(worker, "evaluate", fail_first)
    before = value(running, "evaluation_retries_total")
    assert infer(http, key_id, owner.inputs(IMAGE)).status_code == 200
    assert value(running, "evaluation_retries_total") == before + 1
    assert value(running, "worker_failures_total", code="worker-failed") >= 1


def test_errors_to_be_alerted_of_are_counted_from_zero_on(tmp_path):
    with running_service(tmp_path, [MODEL]) as fresh:
        for code in problems.ALARMING:
            assert fresh.service.metrics.registry.get_sample_value("heinfer_errors_total", {"code": code}) == 0.0


def metrics_text(running: RunningService) -> str:
    return httpx.get(f"http://127.0.0.1:{running.app.state.metrics_port}/metrics", timeout=10).text


def test_prometheus_finds_them_at_an_address_of_their_own(running, http):
    text = metrics_text(running)
    assert "# TYPE heinfer_stage_seconds histogram" in text
    assert_problem(http.get("/metrics"), 404, "not-found")


def test_the_dashboard_asks_for_metrics_that_there_are():
    dashboard = json.loads((ROOT / "monitoring/grafana/dashboards/heinfer.json").read_text())
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"heinfer_\w+", target["expr"])
    }
    known = {name.removesuffix("_total") for name in re.findall(r"`(heinfer_\w+)`", documented.metrics_table())}
    assert len(asked) > 10
    assert {re.sub(r"_(total|bucket)$", "", name) for name in asked} <= known


# Readiness and logs ----------------------------------------------------------------------------


def test_it_is_ready_as_long_as_a_worker_can_evaluate(running, http, monkeypatch):
    assert http.get("/readyz").json() == {"status": "ready"}
    monkeypatch.setattr(GatedWorker, "failed", True)
    assert_problem(http.get("/readyz"), 503, "not-ready")
    assert http.get("/healthz").status_code == 200


def test_a_worker_that_starts_says_what_it_has_loaded(running, caplog):
    caplog.set_level(logging.INFO)
    worker = running.worker
    running.portal.call(worker.stop)
    running.portal.call(worker.start)
    facts = [record.facts for record in caplog.records if record.message == "model loaded"]
    assert [fact["model"] for fact in facts] == ["tiny"]
    assert 0 < facts[0]["seconds"] < 60


def test_logs_are_json_and_hold_no_payload_no_key_and_no_id(running, http, owner, caplog):
    caplog.set_level(logging.INFO)
    key_id = registered(http, owner.keys)
    body = owner.inputs(IMAGE)
    assert infer(http, key_id, body).status_code == 200
    assert infer(http, key_id, body[:-1]).status_code == 400
    http.delete(f"/keys/{key_id}")
    lines = [JsonFormatter().format(record) for record in caplog.records if record.name.startswith("heinfer")]
    requests = [line for line in map(json.loads, lines) if line["event"] == "request"]
    assert [(line["route"], line["status"], line["code"]) for line in requests] == [
        ("/models/{model}/keys", 201, None),
        ("/infer", 200, None),
        ("/infer", 400, "frame-length"),
        ("/keys/{key_id}", 204, None),
    ]
    assert requests[1]["received"] == len(body)
    for secret in (key_id, body[200:216].hex(), repr(body[200:208]), owner.keys[200:216].hex()):
        assert not any(secret in line for line in lines)


# Documents -------------------------------------------------------------------------------------


def test_every_setting_and_metric_is_in_its_table():
    assert documented.filled(OPERATION) == OPERATION, "run python tests/support/documented.py"


def test_every_endpoint_is_documented_and_no_other(http):
    paths = http.get("/openapi.json").json()["paths"]
    served = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    named = set(re.findall(r"^\| `([A-Z]+ /\S*)` \|", OPERATION, re.M))
    assert named == served | {"GET /openapi.json"}


def codes() -> set[str]:
    """Every code that an answer may have."""
    kinds = [kind for kind in problems._STATUS if kind is not FormatError and kind is not errors.ServiceError]
    own = {kind.code for kind in kinds}
    frames = {kind.code for kind in subclasses(errors.FrameError) | {errors.FrameError, errors.NewerFormatError}}
    backend = {kind.code for kind in subclasses(errors.BackendError)}
    return own | frames | backend | {"internal-error", "malformed-request", "bad-request", "not-found"}


def subclasses(kind: type[HeinferError]) -> set[type[HeinferError]]:
    return {below for child in kind.__subclasses__() for below in (child, *subclasses(child))}


@pytest.mark.parametrize("document", [OPERATION, WIRE], ids=["operation", "wire-format"])
def test_every_code_is_documented(document):
    named = {
        code for row in re.findall(r"^\| (`[^|]*`) \|", document, re.M) for code in re.findall(r"`([a-z-]+)`", row)
    }
    assert codes() - named == set()


def test_what_is_documented_exists():
    for name in re.findall(r"`([A-Z]+_[A-Z_]*[A-Z])`", OPERATION + (ROOT / "SECURITY.md").read_text()):
        short = name.removeprefix("HEINFER_SERVER_").lower()
        assert short in settings.Settings.model_fields, name


def test_the_unit_of_systemd_sets_what_there_is():
    names = re.findall(r"^Environment=HEINFER_SERVER_(\w+)=", (ROOT / "deploy" / "heinfer.service").read_text(), re.M)
    assert len(names) == 3
    assert {name.lower() for name in names} <= settings.Settings.model_fields.keys()


def test_files_for_deployment_are_documented():
    for path in (ROOT / "deploy").iterdir():
        assert f"(../deploy/{path.name})" in OPERATION
