"""Evaluates encrypted CKKS circuits on public words. heinfer's backend ``native`` is the interface to use."""

from heinfer_native._native import FORMAT, Control, Keys, Program, Ring, encode, expand_seed, instruction_sets

__all__ = ["FORMAT", "Control", "Keys", "Program", "Ring", "encode", "expand_seed", "instruction_sets"]
