"""The table of networks that people bring, made polynomial and run encrypted."""

from __future__ import annotations

from record_tables import records, table


def foreign_table() -> str:
    """Accuracy before, made polynomial, with noise; and of some test inputs encrypted, with their labels."""
    head = [
        "network", "degrees", "levels", "test inputs", "accuracy before", "of polynomials", "with noise", "encrypted",
        "label of cleartext", "exempt", "least bits", "seconds, median",
    ]  # fmt: skip
    rows = [
        [
            f"`{one['network']}`",
            one["degrees"],
            str(one["levels"]),
            f"{one['test_inputs']:,}",
            *(f"{one[key]:.2%}" for key in ("accuracy_original", "accuracy", "accuracy_noisy")),
            str(one["images"]),
            str(one["agreements"]),
            str(one["exempted"]),
            f"{one['precision_bits_min']:.1f}",
            f"{one['eval_seconds']['median']:.2f}",
        ]
        for one in records("foreign-encrypted")
    ]
    return table(head, rows)
