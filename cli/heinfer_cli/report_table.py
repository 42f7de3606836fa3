"""A report, for people."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from heinfer.circuit.counts import Counts
from heinfer.circuit.precision import WORST_OF
from heinfer.compiler.report import Report
from heinfer.costs.cost import Cost

_MEGA = 1e6


def print_report(report: Report, console: Console) -> None:
    """Print what every layer does and costs, and what the whole takes."""
    for part in (_costs(report), _layouts(report), _ranges(report), _totals(report)):
        console.print(part, "")


def print_cost(name: str, policy: str, cost: Cost, backend: str, console: Console) -> None:
    """Print what a network takes under a policy."""
    counts = cost.counts
    rows = [
        ("policy", policy),
        ("parameters", f"N = {cost.parameters.ring_degree}, {cost.input_level} levels"),
        ("key switches", f"{counts.key_switches}, of them {counts.rotations} rotations"),
        ("products", f"{counts.hma} HMA, {counts.ct_ct_mults} ct x ct"),
        ("evaluation keys", _keys(cost)),
        ("an image", f"{_times(cost, backend)}; {_sent(cost)}"),
        *([("server memory", _memory(cost.memory_bytes))] if cost.memory_bytes is not None else []),
        *(("sampled", f"{step}: {some} of {all_} ciphertexts") for step, (some, all_) in cost.sampled.items()),
    ]
    console.print(f"{name} with random weights: counts do not depend on them", _grid(rows), "")


def _memory(held: int) -> str:
    return f"{held / _MEGA:.0f} MB for one client's keys and request"


def _sent(cost: Cost) -> str:
    return f"{cost.upload_bytes / 1000:.1f} kB up, {cost.download_bytes / 1000:.1f} kB down"


def _keys(cost: Cost) -> str:
    return f"{cost.key_count} keys, {cost.key_bytes / _MEGA:.1f} MB, sent once"


def _times(cost: Cost, backend: str) -> str:
    """The time on a backend, and on the others beside it."""
    others = [f"{spent:.0f} on {other}" for other, spent in cost.predicted.items() if other != backend]
    beside = f" ({', '.join(others)})" if others else ""
    return f"{cost.predicted[backend]:.0f} ms on {backend}{beside}, one thread, predicted"


def _costs(report: Report) -> Table:
    images = "one image" if report.batch == 1 else f"{report.batch} images together"
    table = Table(
        title=f"{report.name}: {images} on {report.backend}, one thread, predicted",
        caption="HMA: ciphertext x plaintext products; ct x ct: ciphertext x ciphertext products",
    )
    table.add_column("layer")
    for name in ("level", "scale", "rotations", "hoisted", "HMA", "ct x ct", "ms"):
        table.add_column(name, justify="right")
    for layer in report.layers:
        scale = f"2^{layer.scale_bits:.1f}"
        table.add_row(layer.name, str(layer.level), scale, *_counts(layer.counts), f"{layer.milliseconds:.0f}")
    table.add_section()
    table.add_row("all", "", "", *_counts(report.counts), f"{report.milliseconds:.0f}")
    return table


def _counts(counts: Counts) -> tuple[str, ...]:
    return str(counts.rotations), str(counts.rotations_hoisted), str(counts.hma), str(counts.ct_ct_mults)


def _layouts(report: Report) -> Table:
    before = report.layers[0].layout_in if report.layers else ""
    rows = [("input", before)]
    for layer in report.layers:
        rows.append((layer.name, layer.kernel))
        if layer.layout_in != before:  # it reads several tensors, or another than that of the layer above
            rows.append(("", f"from {layer.layout_in}"))
        if layer.layout_out != layer.layout_in:
            rows.append(("", f"to {layer.layout_out}"))
        before = layer.layout_out
    return _grid(rows)


def _ranges(report: Report) -> Table:
    table = Table(
        title="how large values get",
        caption="seen: in calibration; bits free: beyond 1.5 times that, of which the last layer's keep scores from "
        "wrapping around; worst case: of any image that a client can send; bits right: of the scores, were no other "
        "layer noisy",
    )
    table.add_column("layer")
    for name in ("seen", "bits free", "worst case", "bits right"):
        table.add_column(name, justify="right")
    for layer in report.layers:
        worst = "unbounded" if layer.worst_case is None else f"{layer.worst_case:.3g}"
        right = _bits(layer.precision_bits)
        table.add_row(layer.name, f"{layer.largest:.3g}", f"{layer.headroom:.1f}", worst, right)
    if report.encryption_bits is not None:
        table.add_section()
        table.add_row("encryption", "", "", "", _bits(report.encryption_bits))
    return table


def _bits(bits: float | None) -> str:
    return "" if bits is None else f"{bits:.1f}"


def _totals(report: Report) -> Table:
    ring = report.parameters
    return _grid(
        [
            ("policy", report.policy),
            *_ends(report),
            (
                "parameters",
                f"N = {ring.ring_degree}, {report.input_level} levels, {report.counts.key_switches} key switches",
            ),
            ("modulus", f"{ring.log_qp:.1f} bits; 128-bit security allows {ring.security_limit}"),
            (
                "scores",
                f"up to {report.largest_score:.3g} in calibration; from {report.capacity:.3g} on they wrap around",
            ),
            *([("precision", f"{report.precision} predicted, worst of {WORST_OF} images")] if report.precision else []),
            ("evaluation keys", _keys(report)),
            *_requests(report),
            ("server memory", _memory(report.memory_bytes)),
        ]
    )


def _ends(report: Report) -> list[tuple[str, str]]:
    """What goes in and out, where that is more than a picture and its scores."""
    if len(report.inputs) == len(report.outputs) == 1 and report.inputs[0].endswith("image"):
        return [] if report.outputs[0].endswith("classification") else [("output", report.outputs[0])]
    ends = [("inputs" if len(report.inputs) > 1 else "input", report.inputs)]
    ends.append(("outputs" if len(report.outputs) > 1 else "output", report.outputs))
    return [("" if number else name, part) for name, parts in ends for number, part in enumerate(parts)]


def _requests(report: Report) -> list[tuple[str, str]]:
    whole = f"{_times(report, report.backend)}; {_sent(report)}"
    if report.batch == 1:
        return [("an image", whole)]
    up, down = report.upload_bytes / 1000 / report.batch, report.download_bytes / 1000 / report.batch
    share = f"{report.milliseconds_an_image:.1f} ms, {up:.1f} kB up, {down:.1f} kB down"
    return [(f"{report.batch} images", whole), ("an image of them", share)]


def _grid(rows: list[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", min_width=15)
    for row in rows:
        table.add_row(*row)
    return table
