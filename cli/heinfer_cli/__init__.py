"""The command line, above everything else. Each verb imports what it needs when it runs."""

from heinfer_cli.main import main

__all__ = ["main"]
