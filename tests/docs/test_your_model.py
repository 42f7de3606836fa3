"""docs/your-model.md, done as it says; what it prints is what stands there, but for what machines differ in."""

import re

import pytest
from pages import ROOT, blocks, inline, python, serving, shell, shell_lines

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs" / "your-model.md").read_text()
*SCRIPT, CALL = blocks(PAGE, "python")
(SERVE,) = [words for words in shell_lines(PAGE) if words[:2] == ["heinfer", "serve"]]
NUMBER = re.compile(r"\d[\d.,]*")


def test_the_page(tmp_path):
    shown = blocks(PAGE, "text")
    printed = python("".join(SCRIPT), tmp_path)
    trained, replaced, tuned = (float(share) for share in re.findall(r"([\d.]+)%$", printed, re.M)[:3])
    assert replaced < trained
    assert tuned > 97
    assert NUMBER.sub("#", printed) == NUMBER.sub("#", "".join(shown[:4]))
    plan = shell(inline(PAGE, "plan"), tmp_path)
    assert "evaluation keys" in plan
    assert "evaluation keys" in shown[4]
    with serving(SERVE, tmp_path):
        answers = [line.split(" is ") for line in python(CALL, tmp_path).splitlines()]
    assert len(answers) == len(shown[-1].splitlines())
    assert sum(given == right for given, right in answers) >= len(answers) - 1  # trained elsewhere, it may err once
