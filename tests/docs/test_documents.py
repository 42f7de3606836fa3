"""What documents name exists: links, files, commands with their options, verbs of make, names in Python."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
from pages import ROOT, blocks, shell_lines

from benchmarks.__main__ import app as benchmarks
from heinfer_cli.main import app as heinfer

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
TODAY = [document for document in DOCUMENTS if document.name != "CHANGELOG.md"]  # that one says what once was
NOT_OURS = {".git", ".venv", "build", "node_modules", "__pycache__"}
OF_SEAL = {"native/src/seal", "util/hestdparms.h", "evaluator.cpp", "keygenerator.cpp", "randomgen.cpp", "rlwe.cpp"}
HASHED = {"heinfer bundle signature 1", "heinfer keys 3", "heinfer evaluation 3"}
"""Words before what is hashed or signed; no commands."""
SOURCES = (".py", ".cpp", ".h", ".inc", ".toml", ".svg", ".md", ".lock", ".yml")
GROUPS = {"heinfer": typer.main.get_command(heinfer), "benchmarks": typer.main.get_command(benchmarks)}

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
every_page_of_today = pytest.mark.parametrize("document", TODAY, ids=lambda path: str(path.relative_to(ROOT)))


def ours() -> Iterator[str]:
    """Every file and folder of the repository; folders end in a slash."""
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in NOT_OURS]
        at = Path(folder).relative_to(ROOT)
        yield from (f"/{at / name}/" for name in folders)
        yield from (f"/{at / name}" for name in files)


OURS = "\n".join(ours()) + "\n"
CODE = "\n".join(
    path.read_text()
    for folder in ("heinfer", "server", "client", "cli", "native", "benchmarks", "monitoring")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".cpp", ".h", ".yml")
)
TOP = tuple(f"{path.name}/" for path in ROOT.iterdir() if path.is_dir() and path.name not in NOT_OURS)


def in_code(text: str) -> list[str]:
    """What stands in backticks, in running text."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S))


# Links -------------------------------------------------------------------------------------------


def anchors(document: Path) -> set[str]:
    """Names by which GitHub reaches the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_document
def test_links_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)", document.read_text()):
        if "://" not in link:
            name, _, anchor = link.partition("#")
            target = document.parent / name if name else document
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_every_page_is_linked_from_another() -> None:
    linked = {
        (document.parent / link.partition("#")[0]).resolve()
        for document in DOCUMENTS
        for link in re.findall(r"\]\(([^)\s]+)", document.read_text())
        if "://" not in link and not link.startswith("#")
    }
    assert {path for path in (ROOT / "docs").rglob("*") if path.is_file()} <= linked


# Files -------------------------------------------------------------------------------------------


@every_page_of_today
def test_files_and_folders_that_are_named_exist(document: Path) -> None:
    named = {
        name
        for name in in_code(document.read_text())
        if re.fullmatch(r"[\w.*{}/-]+", name) and (name.endswith(SOURCES) or name.startswith(TOP) or name.endswith("/"))
    }
    ours = {name for name in named - OF_SEAL if not name.startswith(("/", "build/"))}
    assert not {name for name in ours if not is_ours(name)}


def is_ours(name: str) -> bool:
    """Whether a file or folder is in the repository, by its whole path or by the end of it; * stands for anything."""
    pattern = re.escape(name.rstrip("/")).replace(r"\*", "[^/\n]*")
    return re.search(rf"/{pattern}{'/' if name.endswith('/') else '/?'}\n", OURS) is not None


# Commands ----------------------------------------------------------------------------------------


def commands(text: str) -> Iterator[list[str]]:
    """Words of every command of ours, in running text and in blocks."""
    lines = [*in_code(text), *(shlex.join(words) for words in shell_lines(text))]
    for line in lines:
        for name, start in (("heinfer", "heinfer "), ("benchmarks", "python -m benchmarks ")):
            if line.startswith(start) and line not in HASHED:
                yield [name, *line.removeprefix(start).split()]


def refusal(words: list[str]) -> str:
    """What of a command does not exist; nothing when all does."""
    command = GROUPS[words[0]]
    options = options_of(command)
    for word in words[1:]:
        if word.startswith("-"):
            if word.partition("=")[0] not in options:
                return f"{' '.join(words)}: no option {word}"
        elif below := commands_of(command):
            if word not in below:
                return f"{' '.join(words)}: no command {word}"
            command = below[word]
            options = options | options_of(command)
    return ""


def commands_of(command: Any) -> Mapping[str, Any]:
    return getattr(command, "commands", {})


def options_of(command: Any) -> set[str]:
    return {"--help", "-h"} | {name for one in command.params for name in (*one.opts, *one.secondary_opts)}


def all_options(command: Any) -> set[str]:
    return options_of(command).union(*map(all_options, commands_of(command).values()))


@every_page_of_today
def test_commands_and_their_options_exist(document: Path) -> None:
    refused = [refusal(words) for words in commands(document.read_text())]
    assert not [said for said in refused if said]


OF_OTHERS = {"--require-hashes", "--no-deps", "--no-build-isolation", "--entrypoint", "--rm"}


@every_page_of_today
def test_options_that_are_named_alone_exist(document: Path) -> None:
    known = all_options(GROUPS["heinfer"]) | all_options(GROUPS["benchmarks"]) | OF_OTHERS
    named = {name.split("=")[0].split()[0] for name in in_code(document.read_text()) if name.startswith("--")}
    assert not named - known


@every_document
def test_make_has_the_verbs_that_are_named(document: Path) -> None:
    text = document.read_text()
    verbs = {words[1] for words in shell_lines(text) if words[0] == "make"}
    for verb in sorted(verbs | set(re.findall(r"`make ([a-z-]+)`", text))):
        subprocess.run(["make", "--dry-run", verb], cwd=ROOT, check=True, capture_output=True)


# Python ------------------------------------------------------------------------------------------


@every_page_of_today
def test_names_of_packages_and_what_is_in_them_exist(document: Path) -> None:
    dotted = re.compile(r"(?:heinfer|heinfer_client|heinfer_server|benchmarks)(?:\.\w+)+")
    named = {name.split("(")[0] for name in in_code(document.read_text())}
    ours = [name for name in sorted(named) if dotted.fullmatch(name) and not name.endswith(SOURCES)]
    assert not [name for name in ours if not resolves(name)]


CLASSES_OF_OTHERS = {"BatchEncoder", "DynamicUser", "ExecStart", "TimeoutStartSec", "TimeoutStopSec", "WatchdogSec"}
"""Classes of SEAL, settings of systemd."""


@every_page_of_today
def test_classes_that_are_named_exist(document: Path) -> None:
    if document.name == "glossary.md":  # it has others' names; tests/docs/test_glossary.py looks at ours
        return
    named = {
        word for word in in_code(document.read_text()) if re.fullmatch(r"(?:[A-Z][a-z]+){2,}", word)
    } - CLASSES_OF_OTHERS
    assert not [word for word in sorted(named) if not re.search(rf"\b{word}\b", CODE)]


def resolves(name: str) -> bool:
    module, *attributes = name.split(".")
    found = importlib.import_module(module)
    for attribute in attributes:
        module = f"{module}.{attribute}"
        if not hasattr(found, attribute):
            try:
                importlib.import_module(module)
            except ModuleNotFoundError:
                return False
        found = getattr(found, attribute)
    return True


@every_document
def test_tables_are_tables(document: Path) -> None:
    for table in re.findall(r"(?:^\|.*\n)+", document.read_text() + "\n", re.M):
        _, line, *_ = [*table.splitlines(), ""]
        assert re.fullmatch(r"(\| ?:?-+:? ?)+\|", line), table


def test_blocks_of_python_are_python() -> None:
    for document in DOCUMENTS:
        for block in blocks(document.read_text(), "python"):
            compile(block, str(document), "exec")


# The form of decisions ---------------------------------------------------------------------------

DECISIONS = [page for page in (ROOT / "docs" / "design").glob("*.md") if page.name != "worked-example.md"]


@pytest.mark.parametrize("page", DECISIONS, ids=lambda path: path.name)
def test_decisions_say_what_and_why_and_what_was_rejected(page: Path) -> None:
    text = page.read_text()
    decisions = re.findall(r"^- \*\*We (.*?)(?=^- |^$)", text, re.M | re.S)
    assert decisions
    for decision in decisions:
        flat = " ".join(decision.split())
        assert "ecause" in flat, flat
        assert "Not " in flat, flat
        assert len(re.findall(r"[.!?](?:\*\*)?(?= [A-Z]|$)", flat)) <= 5, flat
    assert "\n## Rejected\n" in text


@pytest.mark.parametrize("page", [*DECISIONS, ROOT / "docs" / "architecture.md"], ids=lambda path: path.name)
def test_lines_are_short(page: Path) -> None:
    lines = page.read_text().splitlines()
    assert not [line for line in lines if len(line) > 120 and not line.startswith(("|", "!["))]
