"""Ask for known vulnerabilities of all that is pinned: `python audit.py PIP_AUDIT FILE...`.

Exit code 0: every package was looked up, and none has any. 1: some have, and are named. 2: not all could be looked up,
which says nothing about them. pip-audit by itself ends with 1 for both of the last, and with 0 where an index answers
that it does not know a package.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_SECONDS = 600
_SHOWN = 5


@dataclass(frozen=True)
class Found:
    """What is known of the packages of one or more files.

    Attributes:
        looked_up: packages that were.
        vulnerable: a line for each vulnerability.
        unknown: a line for each package or file that could not be looked up.
    """

    looked_up: int = 0
    vulnerable: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()

    def __add__(self, other: Found) -> Found:
        return Found(self.looked_up + other.looked_up, self.vulnerable + other.vulnerable, self.unknown + other.unknown)


def look_up(pip_audit: str, file: str) -> Found:
    """Look up the packages of one file of pinned requirements."""
    options = ["--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json", "--requirement", file]
    try:
        done = subprocess.run([pip_audit, *options], capture_output=True, text=True, timeout=_SECONDS, check=False)
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        return Found(unknown=(f"{file}: no answer in {_SECONDS} s",))
    except (ValueError, KeyError):
        last = (done.stderr.strip().splitlines() or [f"pip-audit ended with {done.returncode}"])[-1]
        return Found(unknown=(f"{file}: {last}",))
    if not packages:
        return Found(unknown=(f"{file}: there are no packages in it",))
    return sum((_of_package(package) for package in packages), Found())


def _of_package(package: dict[str, Any]) -> Found:
    if "skip_reason" in package:
        return Found(unknown=(package["skip_reason"],))
    lines = tuple(
        f"{package['name']} {package['version']}: {known['id']}, mended in {', '.join(known['fix_versions']) or 'none'}"
        for known in package["vulns"]
    )
    return Found(1, lines)


def main(pip_audit: str, files: Sequence[str]) -> int:
    """Look up all files and say what was found; returns the exit code."""
    found = sum((look_up(pip_audit, file) for file in files), Found())
    for line in dict.fromkeys(found.vulnerable):
        print(f"vulnerable: {line}")
    unknown = list(dict.fromkeys(found.unknown))
    for line in unknown[:_SHOWN]:
        print(f"not looked up: {line}", file=sys.stderr)
    if len(unknown) > _SHOWN:
        print(f"not looked up: {len(unknown) - _SHOWN} more", file=sys.stderr)
    if found.unknown:
        print(
            "the audit could not look everything up, so it says nothing: it needs the network and PyPI itself, not a "
            "mirror without advisories",
            file=sys.stderr,
        )
        return 2
    if found.vulnerable:
        return 1
    print(f"{found.looked_up} pinned packages looked up, none has a known vulnerability")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
