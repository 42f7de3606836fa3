"""What the fuzzer of the native library's reader of programs has found (tests/fuzz), once more, under sanitizers."""

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "fuzz"))

import program_seeds

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
FUZZ = ROOT / "tests" / "fuzz"
CORPUS = sorted((FUZZ / "programs").iterdir())
SOURCES = [path for path in sorted((ROOT / "native" / "src").glob("*.cpp")) if path.name != "module.cpp"]
SOURCES += [*sorted((ROOT / "native" / "src" / "operations").glob("*.cpp")), ROOT / "native/src/kernels/portable.cpp"]
SANITIZED = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]


def compiled(source: Path, target: Path, *options: str | Path) -> bool:
    command = ["c++", "-std=c++20", "-O0", "-g", "-Wno-psabi", *SANITIZED, source, *options, "-lpthread", "-o", target]
    try:
        return subprocess.run(command, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def replay(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("replay")
    empty = folder / "empty.cpp"
    empty.write_text("int main() {}")
    if not compiled(empty, folder / "empty"):
        pytest.skip("needs a C++ compiler with the address and undefined-behaviour sanitizers")
    target = folder / "replay"
    assert compiled(FUZZ / "program_target.cpp", target, "-DREPLAY", f"-I{ROOT / 'native' / 'src'}", *SOURCES)
    return target


def outcomes(replay: Path, paths: list[Path]) -> dict[str, str]:
    ran = subprocess.run([replay, *paths], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return {path.name: line.partition(": ")[2] for path, line in zip(paths, ran.stdout.splitlines(), strict=True)}


def test_programs_of_real_circuits_run(replay, tmp_path):
    program_seeds.main(tmp_path)
    found = outcomes(replay, sorted(tmp_path.iterdir()))
    assert len(found) > 8
    assert set(found.values()) == {"run"}


def test_what_the_fuzzer_found_is_refused_or_runs(replay):
    assert 20 < len(CORPUS) <= 60
    found = outcomes(replay, CORPUS)
    assert "run" in found.values()
    assert len(set(found.values())) > 10  # most ways to be refused
