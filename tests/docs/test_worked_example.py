"""docs/design/worked-example.md: its code prints what stands there, its numbers are printed, its pictures are drawn."""

import re

from pages import ROOT, blocks, python

from benchmarks.draw.plots import example

FOLDER = ROOT / "docs" / "design"
PAGE = (FOLDER / "worked-example.md").read_text()


def test_the_code_prints_what_the_page_shows(tmp_path):
    printed = python("".join(blocks(PAGE, "python")), tmp_path)
    assert printed == "".join(blocks(PAGE, "text"))


def test_every_number_of_the_text_is_in_the_code_or_in_what_it_prints():
    shown = "".join(blocks(PAGE, "python") + blocks(PAGE, "text"))
    text = re.sub(r"^```\w+\n.*?^```$|^#.*?$|`[^`]*`", "", PAGE, flags=re.M | re.S)
    known = set(re.findall(r"\d+", shown))
    assert set(re.findall(r"\d+", text)) - known == set()


def test_the_pictures_are_those_that_the_command_draws(tmp_path):
    example(tmp_path)
    drawn = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert drawn == {path.name: path.read_text() for path in FOLDER.glob("example-*.svg")}, (
        "python -m benchmarks example"
    )
    assert all(f"]({name})" in PAGE for name in drawn)
