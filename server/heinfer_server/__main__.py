"""python -m heinfer_server: the service with settings from the environment."""

from __future__ import annotations

import signal
import sys

from pydantic import ValidationError

from heinfer.errors import HeinferError
from heinfer_server.main import run
from heinfer_server.settings import Settings, problems_of


def main() -> int:
    """Run the service; 2 when its settings are wrong, 130 when it is interrupted before it serves."""
    try:
        run(Settings())
    except ValidationError as error:
        print(f"error: {problems_of(error)}", file=sys.stderr)
        return 2
    except HeinferError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    sys.exit(main())
