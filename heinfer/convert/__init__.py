"""Rewriting a torch model into one that runs well encrypted."""

from heinfer.convert.factorize import factorize

__all__ = ["factorize"]
