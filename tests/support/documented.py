"""Tables of docs/operation.md that follow from the code: `python tests/support/documented.py` writes them anew."""

from __future__ import annotations

import re
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path
from unittest.mock import MagicMock

from pydantic import ByteSize

from heinfer_server.gauges import watch
from heinfer_server.settings import Settings
from heinfer_server.telemetry.metrics import Metrics

DOCUMENT = Path(__file__).parents[2] / "docs" / "operation.md"


def descriptions() -> dict[str, str]:
    """What the docstring says of each setting."""
    assert Settings.__doc__
    _, _, attributes = cleandoc(Settings.__doc__).partition("Attributes:\n")
    entries = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", attributes, re.M)
    return {name: " ".join(text.split()) for name, text in entries}


def default_of(name: str) -> str:
    field = Settings.model_fields[name]
    if field.default_factory is not None:
        return "one a core, at most 4"
    if field.is_required():
        return "required"
    value = field.default
    if isinstance(value, ByteSize):
        return value.human_readable().replace(".0", "")
    return "" if value in (None, ()) else f"{value:g}" if isinstance(value, float) else str(value).lower()


def settings_table() -> str:
    said = descriptions()
    assert said.keys() == Settings.model_fields.keys()
    rows = [f"| `{name.upper()}` | {default_of(name)} | {said[name]} |" for name in Settings.model_fields]
    return "\n".join(["| setting | default | |", "|---|---|---|", *rows])


def metrics_table() -> str:
    metrics = Metrics()
    watch(metrics, MagicMock())
    rows = []
    for family in sorted(metrics.registry.collect(), key=lambda family: family.name):
        name = family.name + ("_total" if family.type == "counter" else "")
        rows.append(f"| `{name}` | {family.type} | {family.documentation} |")
    return "\n".join(["| metric | kind | |", "|---|---|---|", *rows])


def filled(text: str) -> str:
    """The document, with its tables as they should be."""
    for name, table in tables():
        pattern = rf"(<!-- {name} -->\n)(?:\|[^\n]*\n)*(<!-- end -->)"
        text, count = re.subn(pattern, lambda found, table=table: f"{found[1]}{table}\n{found[2]}", text)
        assert count == 1, name
    return text


def tables() -> Iterator[tuple[str, str]]:
    yield "settings", settings_table()
    yield "metrics", metrics_table()


if __name__ == "__main__":
    DOCUMENT.write_text(filled(DOCUMENT.read_text()))
