"""Tables of documents that follow from records of benchmarks: `python tests/support/recorded.py` writes them anew."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"

Record = Mapping[str, Any]


def records(name: str) -> Sequence[Record]:
    found: list[Record] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


def range_table() -> str:
    """What every measured model made of generated pictures, encrypted, and of test images."""
    columns = {
        "network": "model",
        "limit": "scores up to",
        "encrypted": "pictures, encrypted",
        "encrypted_out_of_range": "out of range",
        "encrypted_uncertain": "uncertain",
        "encrypted_wrong_uncertain": "wrong, uncertain",
        "encrypted_wrong_out_of_range": "wrong, out of range",
        "encrypted_wrong_unmarked": "**wrong, unmarked**",
        "test_images": "test images",
        "test_out_of_range": "out of range",
        "test_wrong_unmarked": "wrong, unmarked",
    }
    return _table(
        list(columns.values()),
        [
            [f"{one[key]:,}" if isinstance(one[key], int) else f"{one[key]}" for key in columns]
            for one in records("range")
        ],
    )


def survive_table() -> str:
    """What clients heard of a service that was ended, killed and replaced again and again."""
    (one,) = records("survive")
    rows = [
        ("right answers, each of the version that it names", f"{one['right']:,}"),
        (
            "wrong answers; answers to another request; lost calls; untyped errors",
            _counts(one, "wrong", "mixed_up", "lost", "untyped_errors"),
        ),
        ("service ended (SIGTERM), killed", ", ".join(str(count) for count in one["restarts"].values())),
        ("changes of the versions that are served", str(one["changes_of_versions"])),
        ("calls under way at restarts, median", f"{one['under_way_at_restarts']['median']:g}"),
        ("registrations of keys, of four clients", str(one["registrations"])),
        ("keys lost; processes, files left", _counts(one, "lost_keys", "leaked_processes", "files_left")),
        ("answers of the proxy in the service's place", f"{sum(one['answered_by_proxy'].values()):,}"),
        (
            "typed errors that callers heard",
            ", ".join(f"`{code}` {count:,}" for code, count in one["typed_errors"].items()),
        ),
    ]
    return _table(["", ""], rows)


def fairness_table() -> str:
    """What a tenant waits for an answer beside another, and as many times what it waits alone."""
    alone, one, many = (record["answered_seconds"] for record in records("fairness"))
    others = ("asks for nothing", "uses one set of keys", "uses 24 sets in rotation: nearly each request loads keys")
    return _table(
        ["the other", "p50, ms", "p95, ms", "p50, times that alone"],
        [
            [other, f"{1e3 * took['p50']:.0f}", f"{1e3 * took['p95']:.0f}", f"{took['p50'] / alone['p50']:.1f}"]
            for other, took in zip(others, (alone, one, many), strict=True)
        ],
    )


def soak_table() -> str:
    """Every kind of fault, and how soon the service answered after it."""
    (one,) = records("soak")
    slowest, not_over = one["slowest_recovery_seconds"], one["faults_not_recovered"]
    return _table(
        ["fault", "times", "not got over", "slowest until the next answer, s"],
        [
            [f"`{name}`", str(times), str(not_over.get(name, 0)), f"{slowest[name]:.1f}"]
            for name, times in sorted(one["faults"].items())
        ],
    )


def soak_counts_table() -> str:
    """What half an hour of faults left."""
    (one,) = records("soak")
    rows = [
        ("minutes", f"{one['minutes']:g}"),
        ("right answers, wrong answers", f"{one['right']:,}, {one['wrong']}"),
        ("bits of precision, least", f"{one['precision_bits_min']:g}"),
        ("registrations of new keys", str(one["registrations_of_newcomers"])),
        ("keys lost; processes, files left", _counts(one, "lost_keys", "leaked_processes", "files_left")),
        ("bytes refused", ", ".join(f"`{code}` {count}" for code, count in one["errors_answered"].items())),
        (
            "errors that callers heard",
            ", ".join(f"`{code}` {count}" for code, count in one["errors_of_callers"].items()),
        ),
        (
            "MB of the process that speaks HTTP, second and last quarter",
            f"{one['main_mb_second_quarter']:.0f}, {one['main_mb_last_quarter']:.0f}",
        ),
        (
            "its open files, second and last quarter",
            _counts(one, "descriptors_second_quarter", "descriptors_last_quarter"),
        ),
        ("MB of all processes, most", f"{one['total_mb_most']:.0f}"),
    ]
    return _table(["", ""], rows)


TABLES = {
    "fairness": (ROOT / "docs" / "service.md", fairness_table),
    "soak": (ROOT / "docs" / "service.md", soak_table),
    "soak-counts": (ROOT / "docs" / "service.md", soak_counts_table),
    "range": (ROOT / "docs" / "benchmarks.md", range_table),
    "survive": (ROOT / "docs" / "service.md", survive_table),
}


def filled(name: str) -> str:
    """The document, with its table as it should be."""
    document, table = TABLES[name]
    pattern = rf"(<!-- {name} -->\n)(?:\|[^\n]*\n)*(<!-- end -->)"
    text, count = re.subn(pattern, lambda found: f"{found[1]}{table()}\n{found[2]}", document.read_text())
    assert count == 1, name
    return text


def _counts(record: Record, *keys: str) -> str:
    return ", ".join(str(record[key]) for key in keys)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    for name, (document, _) in TABLES.items():
        document.write_text(filled(name))
