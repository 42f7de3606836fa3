"""Writes docs/operators.md: what is in the tables, and nothing else."""

import inspect
from pathlib import Path

from heinfer.frontend.onnx.functions import FUNCTIONS
from heinfer.frontend.onnx.module import LEAST_OPSET
from heinfer.frontend.table import OPERATORS
from heinfer.frontend.values import MOST_DEGREE
from heinfer.frontend.ways_out import by_way_out

PAGE = Path(__file__).parent.parent.parent / "docs" / "operators.md"

_HEAD = """# Operators

What a model may consist of. Functions have the names that `torch.export` gives them, those of ATen; `nn.Conv2d` and
`functional.conv2d` are `conv2d`, `x + y` is `add`, `x[:, 1]` is `select`. All of them take any shape with the batch as
its first axis; what mixes the inputs of a batch is refused. This page is written by `tests/support/operators_page.py`.

"""


def page() -> str:
    """The whole page."""
    return "".join([_HEAD, _moves(), _rules(), _refused(), _onnx()])


def _moves() -> str:
    return (
        "## What only moves elements\n\nAs torch has it, with all of its options. It costs nothing by itself: it is "
        f"part of the layers around it.\n\n{_listed(OPERATORS.moves)}\n\n"
    )


def _rules() -> str:
    names: dict[str, list[str]] = {}
    for name, rule in OPERATORS.rules.items():
        names.setdefault(_about(rule), []).append(name)
    rows = "".join(f"| {_listed(found)} | {about} |\n" for about, found in names.items())
    limits = f"Polynomials of one element are evaluated as one up to degree {MOST_DEGREE}.\n\n"
    return f"## What computes\n\n{limits}| functions | what they are taken for |\n|---|---|\n{rows}\n"


def _about(rule: object) -> str:
    doc = inspect.getdoc(rule)
    assert doc, rule
    return doc.partition("\n")[0]


def _refused() -> str:
    rows = "".join(f"| {_listed(names)} | {way} |\n" for way, names in by_way_out().items())
    return f"## What has no encrypted form\n\n| functions and layers | what to do |\n|---|---|\n{rows}\n"


def _onnx() -> str:
    return (
        f"## ONNX\n\nOpset {LEAST_OPSET} and up, of the domains `ai.onnx` and `ai.onnx.ml`. Operators are read as the "
        "functions above; some of these are then refused, as said there. Constants may be computed by any operator of "
        f"onnx in this list.\n\n{_listed(FUNCTIONS)}\n"
    )


def _listed(names: object) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))  # type: ignore[call-overload]


if __name__ == "__main__":
    PAGE.write_text(page())
