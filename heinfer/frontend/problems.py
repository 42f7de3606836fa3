"""All that keeps a module from being compiled, said at once."""

from __future__ import annotations

from collections.abc import Sequence

from heinfer.errors import CompileError, UnsupportedOperatorError


def require_none(problems: Sequence[CompileError]) -> None:
    """Raise one error that names every problem, a line each.

    Raises:
        UnsupportedOperatorError: when one of them is.
        CompileError: for any others.
    """
    lines = list(dict.fromkeys(str(problem) for problem in problems))
    if not lines:
        return
    kind = UnsupportedOperatorError if any(isinstance(p, UnsupportedOperatorError) for p in problems) else CompileError
    raise kind("\n".join(lines))
