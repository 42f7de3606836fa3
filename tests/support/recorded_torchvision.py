"""Tables of the networks of torchvision."""

from __future__ import annotations

from record_tables import Record, records, table

RECORD = "torchvision"


def of_size(size: str) -> list[Record]:
    """Records of networks of their own size, or of the small ones."""
    return [one for one in records(RECORD) if one["size"] == size]


def own_table() -> str:
    """How far the network of maps is from torch, and what a check says of it."""
    head = ["network", "activations", "max pools", "float64", "float32", "products deep", "levels", "s to import"]
    return table([*head, "peak MB", "`heinfer.check`"], [_own(one) for one in of_size("own")])


def _own(one: Record) -> list[str]:
    said = str(one.get("check_refusal") or one.get("check_failure") or one.get("refusal") or one.get("failure") or "")
    if "check_ring_degree" in one:
        seconds = one["check_predicted_milliseconds"] / 1000
        said = (
            f"N = {one['check_ring_degree']:,}, {one['check_levels']} levels, {one['check_rotations']:,} rotations, "
            f"{one['check_hma']:,} products, {seconds:,.0f} s on SEAL"
        )
    said = said.splitlines()[0].replace("|", "\\|")
    keys = "activations", "max_pools", "difference_float64", "difference_float32"
    cells = [str(one.get(key, "")) for key in keys]
    cells += [str(one.get(key, "")) for key in ("check_products", "levels", "import_seconds", "import_peak_mb")]
    return [f"`{one['network']}`", *cells, said]


def small_table() -> str:
    """The small ones, decrypted."""
    head = ["family", "activations", "N", "levels", "rotations", "products", "cleartext", "bits, predicted", "measured"]
    return table([*head, "s to compile", "peak MB", "s to evaluate", ""], [_small(one) for one in of_size("small")])


def _small(one: Record) -> list[str]:
    keys = (
        "activations", "ring_degree", "levels", "rotations", "hma", "difference_cleartext", "bits_predicted",
        "bits_measured", "compile_seconds", "peak_mb", "eval_seconds",
    )  # fmt: skip
    cells = [f"{one[key]:,}" if isinstance(one.get(key), int) else str(one.get(key, "")) for key in keys]
    return [f"`{one['network']}`", *cells, str(one.get("refusal") or one.get("failure") or "")]
