"""docs/glossary.md: the code that a word names is where the table says."""

import re

import pytest
from pages import ROOT

PAGE = (ROOT / "docs" / "glossary.md").read_text()
ROWS = [row.strip("| ").split(" | ") for row in re.findall(r"^\|.*\|$", PAGE, re.M)]
ROWS = [row for row in ROWS if len(row) > 1 and row[0] != "word"]
WORDS = {row[0]: row[-1] for row in ROWS}


@pytest.mark.parametrize("word", WORDS)
def test_a_word_is_in_the_code_that_it_names(word: str) -> None:
    path, *names = re.findall(r"`([^`]+)`", WORDS[word])
    assert names
    text = (ROOT / path).read_text()
    assert not [name for name in names if not re.search(rf"\b{name}\b", text)]


def test_every_row_has_every_column() -> None:
    assert {row.count("|") for row in re.findall(r"^\|.*\|$", PAGE, re.M)} == {8}


def test_every_word_stands_once() -> None:
    words = [word for row in ROWS for word in row[0].split(", ")]
    assert len(words) == len(set(words)) > 50
