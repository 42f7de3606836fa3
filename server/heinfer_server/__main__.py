"""python -m heinfer_server: the service with settings from the environment."""

from __future__ import annotations

import signal
import sys


def main() -> int:
    """Run the service; 2 when its settings are wrong, 130 when it is interrupted before it serves."""
    from heinfer_server.beginning import leave_signals  # noqa: PLC0415

    leave_signals()  # before imports, which take a second
    try:
        return _serve()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _serve() -> int:
    from pydantic import ValidationError  # noqa: PLC0415

    from heinfer.errors import HeinferError  # noqa: PLC0415
    from heinfer_server.main import run  # noqa: PLC0415
    from heinfer_server.settings import Settings, problems_of  # noqa: PLC0415

    try:
        run(Settings())
    except (ValidationError, HeinferError) as error:
        print(f"error: {problems_of(error) if isinstance(error, ValidationError) else error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
