"""Alert rules for Prometheus: of metrics that there are, documented, and right by promtool where that is installed."""

import re
import shutil
import subprocess
from pathlib import Path

import documented
import pytest
import yaml

from heinfer_server.web import problems

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "monitoring"
RULES = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]
NAMES = [rule["alert"] for rule in RULES]


def promtool(*arguments: str) -> str:
    if not shutil.which("promtool"):
        pytest.skip("promtool is not installed (it comes with Prometheus)")
    command = ["promtool", *arguments]
    done = subprocess.run(command, cwd=MONITORING, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_takes_configuration_and_rules():
    assert "1 rule files found" in promtool("check", "config", "prometheus.yml")
    assert f"{len(RULES)} rules found" in promtool("check", "rules", "alerts.yml")


def test_each_alert_fires_when_it_should_and_not_when_all_is_well():
    assert "SUCCESS" in promtool("test", "rules", "alerts.test.yml")


def test_a_threshold_that_is_wrong_would_be_noticed(tmp_path):
    rules = (MONITORING / "alerts.yml").read_text()
    (tmp_path / "alerts.test.yml").write_text((MONITORING / "alerts.test.yml").read_text())
    for wrong in (rules.replace("> 0.1", "> 10"), rules.replace("> 0.9", "> 0.99"), rules.replace("< 0.1", "< 0.3")):
        assert wrong != rules
        (tmp_path / "alerts.yml").write_text(wrong)
        with pytest.raises(AssertionError, match="FAILED"):
            promtool("test", "rules", str(tmp_path / "alerts.test.yml"))


def test_every_alert_is_documented_and_has_a_test():
    documentation = (ROOT / "docs" / "operation.md").read_text()
    assert re.findall(r"^\| `(Heinfer\w+)` \| (\w+) \|", documentation, re.M) == [
        (rule["alert"], rule["labels"]["severity"]) for rule in RULES
    ]
    tested = (MONITORING / "alerts.test.yml").read_text()
    assert set(re.findall(r"\bHeinfer\w+", tested)) == set(NAMES)
    for rule in RULES:
        assert set(rule["annotations"]) == {"summary", "description"}


def test_alerts_ask_for_metrics_that_there_are():
    known = {
        name.removesuffix("_total") for name in re.findall(r"`((?:heinfer|process)_\w+)`", documented.metrics_table())
    }
    for rule in RULES:
        asked = re.findall(r"\b(?:heinfer|process)_\w+", rule["expr"])
        assert {re.sub(r"_(total|bucket)$", "", name) for name in asked} <= known, rule["alert"]


def test_codes_in_alerts_are_counted_from_zero_on():
    (expression,) = (rule["expr"] for rule in RULES if rule["alert"] == "HeinferErrors")
    assert set(re.search(r'code=~"(.*?)"', expression)[1].split("|")) == set(problems.ALARMING)
