"""Which machine a measurement is of."""

from __future__ import annotations

import os
import platform
import re
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from heinfer.ckks.seal import LIBRARY_VERSION


def describe_machine() -> str:
    """Processor, memory and versions in one line."""
    seal = ".".join(map(str, LIBRARY_VERSION))
    return (
        f"{_processor()}, {os.cpu_count()} cores{_memory()}; {platform.system()} {platform.machine()}; "
        f"heinfer {version('heinfer')}, SEAL {seal}"
    )


def _memory() -> str:
    """Where the system says how much there is: Windows does not so."""
    if not hasattr(os, "sysconf"):
        return ""
    return f", {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"


def today() -> str:
    """ISO date, UTC."""
    return datetime.now(UTC).date().isoformat()


def _processor() -> str:
    """The processor's name as Linux knows it, with family and model: names of virtual ones say little."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine()
    found = {
        name: re.search(rf"^{name}\s*: (.+)$", text, re.MULTILINE) for name in ("model name", "cpu family", "model")
    }
    name, family, model = (match[1] if match else "?" for match in found.values())
    return f"{name} (family {family}, model {model})"
