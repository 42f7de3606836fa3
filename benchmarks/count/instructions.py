"""instructions: how many instructions each kernel of the native library takes, by callgrind: no quiet machine needed.

Valgrind knows no AVX-512: the counts are of the AVX2 and the portable kernels, which are of the same source.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import typer

from benchmarks.support.options import Json
from benchmarks.support.records import Record, write_table

ROOT = Path(__file__).parents[2]
RING_DEGREE = 8192
FEW, MANY = 1, 3

_DRIVER = Path(__file__).with_name("kernels.cpp")
_NATIVE = ROOT / "native" / "src"
_SOURCES = ("modulus.cpp", "memory.cpp", "tables.cpp", "galois.cpp", "kernels/portable.cpp")
_FLAGS = ("-std=c++20", "-O3", "-DNDEBUG", "-Wno-psabi")  # as native/CMakeLists.txt has them

_SHOWN = "kernels", "kernel", "instructions", "instructions_per_word"


def instructions(json: Json) -> None:
    """Count instructions of every kernel at N = 8192, on AVX2 and portable code."""
    write_table(measure(), _SHOWN, json)


def measure() -> list[Record]:
    """A record for each kernel and instruction set."""
    for tool in ("c++", "valgrind"):
        if shutil.which(tool) is None:
            raise typer.BadParameter(f"{tool} is not installed")
    with TemporaryDirectory() as folder:
        driver = build(Path(folder))
        return list(_records(driver))


def instruction_sets() -> tuple[str, ...]:
    """Those that are counted on this machine."""
    return ("avx2", "portable") if platform.machine() in {"x86_64", "AMD64"} else ("portable",)


def build(folder: Path) -> Path:
    """Compile the driver with the kernels, as the library compiles them."""
    x86 = "avx2" in instruction_sets()
    flags = (*_FLAGS, *(["-DHEINFER_X86"] if x86 else []))
    objects: list[str] = []
    for name in (*_SOURCES, *(["kernels/avx2.cpp"] if x86 else [])):
        made = folder / f"{name.replace('/', '_')}.o"
        special = ["-mavx2"] if "avx2" in name else []
        _run("c++", *flags, *special, "-c", str(_NATIVE / name), "-o", str(made))
        objects.append(str(made))
    driver = folder / "kernels"
    _run("c++", *flags, str(_DRIVER), *objects, "-o", str(driver))
    return driver


def compiler() -> str:
    """What compiled them: counts of two compilers are not comparable."""
    return _run("c++", "--version").stdout.splitlines()[0]


def _records(driver: Path) -> Iterator[Record]:
    made_by = compiler()
    for name in instruction_sets():
        for kernel in _run(str(driver), name, "list", "0").stdout.splitlines():
            counts = [_count(driver, name, kernel, times) for times in (FEW, MANY)]
            each = (counts[1] - counts[0]) // (MANY - FEW)
            yield {
                "benchmark": "instructions",
                "kernels": name,
                "kernel": kernel,
                "ring_degree": RING_DEGREE,
                "instructions": each,
                "instructions_per_word": round(each / RING_DEGREE, 3),
                "compiler": made_by,
            }


def _count(driver: Path, name: str, kernel: str, times: int) -> int:
    command = ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", str(driver), name, kernel, str(times))
    found = re.search(r"Collected\s*:\s*(\d+)", _run(*command).stderr)
    assert found is not None, "callgrind reports what it collected"
    return int(found[1])


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=True, capture_output=True, text=True)
