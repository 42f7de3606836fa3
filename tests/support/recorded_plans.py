"""Tables of what planning takes, and of what plans take."""

from __future__ import annotations

import re

from record_tables import Record, records, table

PUBLISHED = {
    "SqueezeNet at 32": ("SqueezeNet", 1065, 674, 224),
    "squeezenet1_1 at 224": ("SqueezeNet", 1065, 674, 224),
    "resnet18 at 224": ("ResNet18", 2398, 1894, 788),
    "ResNet-18": ("ResNet18", 2398, 1894, 788),
    "MobileNet at 224": ("MobileNet", 7044, 5391, 786),
    "mobilenet_v2 at 224": ("MobileNet", 7044, 5391, 786),
}
"""Table V of arXiv 2606.16359: the network's name there, rotations of one image by HElayers, Orion and FEnc2."""


def policies_table() -> str:
    """Every network under every policy; of plans that are searched, those for the least time."""
    head = ["network", "policy", "N", "levels", "rotations", "key switches", "HMA", "predicted s", "sampled"]
    rows, last = [], ""
    for one in records("policies"):
        if one["objective"] != "key switches":
            name = f"`{one['network']}`" if one["network"] != last else ""
            rows.append([name, one["policy"], *(_planned(one) if "failure" not in one else _failed(one))])
            last = one["network"]
    return table(head, rows)


def _planned(one: Record) -> list[str]:
    counts = [f"{one[key]:,}" for key in ("rotations", "key_switches", "hma")]
    return [str(one["ring_degree"]), str(one["levels"]), *counts, _seconds(one), _sampled(one)]


def _failed(one: Record) -> list[str]:
    why = "only chains" if "takes chains" in one["failure"] else one["failure"]
    return [*[""] * 6, f"no plan: {why}"]


def _sampled(one: Record) -> str:
    """Its steps; the masks of one are sampled with it."""
    steps = [step for step in one["sampled"].split(", ") if ": mask " not in step]
    return re.sub(r"(\S+) (\d+) of (\d+)", lambda m: f"{m[1]}: {int(m[2]):,} of {int(m[3]):,}", ", ".join(steps))


def objectives_table() -> str:
    """The search for the least time, and for the fewest key switches."""
    head = ["network", "N, least time", "key switches", "predicted s", "peak GB"]
    head += ["N, least key switches", "key switches", "predicted s", "peak GB"]
    found = [one for one in records("policies") if one["policy"] == "heinfer"]
    rows: dict[str, list[str]] = {one["network"]: [f"`{one['network']}`"] for one in found}
    for one in found:
        peak = f"{one['planning_peak_mb'] / 1000:.1f}"
        rows[one["network"]] += [str(one["ring_degree"]), str(one["key_switches"]), _seconds(one), peak]
    return table(head, list(rows.values()))


def _seconds(one: Record) -> str:
    """Predicted, to three figures."""
    seconds = one["predicted_milliseconds"] / 1000
    return f"{seconds:,.0f}" if seconds >= 100 else f"{seconds:.3g}"


def planning_table() -> str:
    """What it takes to plan networks of growing size, and what the plans take."""
    head = ["network", "million entries", "s to plan", "peak MB", "N", "levels", "rotations", "products"]
    head += ["share of slots in products, by layer", "predicted s"]
    return table(
        head,
        [
            [
                one["network"],
                f"{one['entries'] / 1e6:.1f}",
                f"{one['fold_seconds'] + one['plan_seconds']:.1f}",
                *(f"{one[key]:,}" for key in ("peak_mb", "ring_degree", "levels", "rotations", "hma")),
                one["share_of_slots"],
                f"{one['predicted_seconds']:.2f}",
            ]
            for one in records("planning")
            if one["curve"] != "published"
        ],
    )


def published_table() -> str:
    """Networks beside those of which rotations are published."""
    head = [
        "network, planned here",
        "N",
        "levels",
        "rotations",
        "products",
        "s to plan",
        "peak MB",
        "named",
        "HElayers",
    ]
    head += ["Orion", "FEnc2"]
    found = {one["network"]: one for one in records("planning")}
    rows = []
    for name, (named, *others) in PUBLISHED.items():
        one = found[name]
        if "failure" in one:
            planned = [str(one["failure"]), *[""] * 5]
        else:
            planned = [f"{one[key]:,}" for key in ("ring_degree", "levels", "rotations", "hma")]
            planned += [f"{one['fold_seconds'] + one['plan_seconds']:.0f}", f"{one['peak_mb']:,}"]
        rows.append([name, *planned, named, *(f"{count:,}" for count in others)])
    return table(head, rows)
