"""Results that outlive an interruption: one line for each image, beside the file of the records."""

from __future__ import annotations

import json
from dataclasses import Field, asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar


class Result(Protocol):
    """A dataclass of what JSON has, about one image."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def image(self) -> int: ...


R = TypeVar("R", bound=Result)


@dataclass(frozen=True)
class ImageResult:
    """One image, encrypted against cleartext.

    Attributes:
        image: index in the test set.
        agrees: whether the arg max of both scores is the same.
        exempt: whether the cleartext's two largest scores are too close for that to mean anything.
        bits: precision of the decrypted scores.
        seconds: of the evaluation.
    """

    image: int
    agrees: bool
    exempt: bool
    bits: float
    seconds: float


class ResultsFile(Generic[R]):
    """The images that are done, for one subject; results of another subject are dropped."""

    def __init__(self, path: Path, subject: str, kind: type[R]) -> None:
        self._path = path
        self._kind = kind
        self.done = self._read(subject)
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(subject), *(json.dumps(asdict(result)) for result in self.done.values())]
        path.write_text("".join(f"{line}\n" for line in lines))

    def add(self, result: R) -> None:
        """Keep a result, on disk at once."""
        with self._path.open("a") as file:
            file.write(f"{json.dumps(asdict(result))}\n")
        self.done[result.image] = result

    def remove(self) -> None:
        """The results are no longer needed."""
        self._path.unlink()

    def _read(self, subject: str) -> dict[int, R]:
        try:
            head, *lines = self._path.read_text().splitlines()
            if json.loads(head) != subject:
                return {}
        except (FileNotFoundError, ValueError):
            return {}
        results = {}
        for line in lines:
            try:
                result = self._kind(**json.loads(line))
            except (ValueError, TypeError):
                break  # the line that an interruption cut off
            results[result.image] = result
        return results
