"""Coverage-guided fuzzing of the frame reader: `make fuzz`, or python tests/fuzz/fuzz_frames.py FOLDER -runs=N.

Options are libFuzzer's. A failing input is left as crash-* in the current folder; put it into tests/fuzz/corpus.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).parent))

with atheris.instrument_imports(include=["heinfer.formats", "frame_target"]):
    import frame_target


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    random = np.random.default_rng(seed)
    changed = frame_target.mutate(data, random, lambda piece: atheris.Mutate(piece, max(len(piece), 1)))
    return changed[:max_size]


def check(data: bytes) -> None:
    frame_target.check(data)  # libFuzzer takes a result for an opinion on the corpus


def main() -> None:
    for number, data in enumerate(frame_target.seeds()):
        seed = Path(sys.argv[1]) / f"good-{number}"
        seed.write_bytes(data)
    atheris.Setup(sys.argv, check, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
