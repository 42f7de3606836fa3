"""Rotations, instructions, bytes and predicted times: the same on every machine, busy or not."""
