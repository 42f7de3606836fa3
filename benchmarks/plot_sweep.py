"""The picture of a sweep: what the rank, a batch, fewer keys and a limit on the upload change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from matplotlib.axes import Axes
from matplotlib.figure import Figure

Records: TypeAlias = Sequence[Mapping[str, Any]]

_BLUE, _ORANGE, _GREY = "#3b6fb6", "#e08a2e", "#404040"
_SMALL = 9


def draw_sweep(records: Records) -> Figure:
    """Images per second and bytes an image by the batch; time by megabytes of keys, by the upload, by the rank."""
    figure = Figure(figsize=(11, 11), layout="constrained")
    places = figure.subplot_mosaic([["speed", "size"], ["keys", "upload"], ["ranks", "ranks"]])
    speed, size, keys, upload, ranks = (places[name] for name in ("speed", "size", "keys", "upload", "ranks"))
    curves = ("batch", "key limit", "upload limit", "rank")
    batches, fewer, limits, factorized = ([r for r in records if r["curve"] == curve] for curve in curves)
    _draw_speed(speed, batches)
    _draw_size(size, batches)
    _draw_keys(keys, fewer)
    _draw_upload(upload, limits)
    _draw_ranks(ranks, factorized)
    for axes in (speed, size, keys, upload, ranks):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(visible=True, color="#e6e6e6", linewidth=0.8)
        axes.set_axisbelow(True)
    network, degree, machine = (records[0][key] for key in ("network", "ring_degree", "machine"))
    figure.suptitle(f"{network}, N = {degree}: processor time of one thread, {machine.split(';')[0]}", fontsize=11)
    return figure


def _draw_speed(axes: Axes, records: Records) -> None:
    batches = [r["batch"] for r in records]
    axes.plot(batches, [r["images_per_second"] for r in records], "o-", color=_BLUE)
    for r in records:
        _note(axes, r["batch"], r["images_per_second"], f"{r['ratio_to_batch_1']:.1f}x", (0, 8))
    _by_batch(axes, batches)
    axes.set_ylim(0, 1.2 * max(r["images_per_second"] for r in records))
    axes.set_ylabel("images per second")
    _title(axes, "A batch shares its rotations")


def _draw_size(axes: Axes, records: Records) -> None:
    batches = [r["batch"] for r in records]
    keys, uploads = ([r[f"{what}_bytes_an_image"] / 1000 for r in records] for what in ("key", "upload"))
    axes.plot(batches, keys, "o-", color=_ORANGE, label="keys, sent once")
    axes.plot(batches, uploads, "o-", color=_BLUE, label="images, each time")
    for batch, pair in zip(batches, zip(keys, uploads, strict=True), strict=True):
        _note(axes, batch, max(pair), f"{max(pair):,.0f}", (0, 7))
        _note(axes, batch, min(pair), f"{min(pair):,.0f}", (0, -7), va="top")
    _by_batch(axes, batches)
    axes.set_yscale("log")
    axes.margins(y=0.15)
    axes.set_ylabel("kB uploaded, divided by the batch")
    axes.legend(frameon=False, fontsize=_SMALL)
    _title(axes, "... and its upload")


def _by_batch(axes: Axes, batches: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(batches, [str(batch) for batch in batches])
    axes.set_xlabel("images in a batch")
    axes.margins(x=0.08)


def _draw_keys(axes: Axes, records: Records) -> None:
    megabytes = [r["key_bytes"] / 1e6 for r in records]
    measured, predicted = [_measured(r) for r in records], [_predicted(r) for r in records]
    axes.plot(megabytes, measured, "o-", color=_BLUE, label="measured")
    axes.plot(megabytes, predicted, "D", color=_GREY, fillstyle="none", label="predicted, in rotations of this machine")
    for r, size, highest in zip(records, megabytes, map(max, measured, predicted), strict=True):
        _note(axes, size, highest, f"{r['keys']} keys", (0, 9))
    axes.margins(x=0.14)
    axes.set_ylim(0, 1.35 * max(*measured, *predicted))
    axes.set_xlabel("MB of evaluation keys")
    axes.set_ylabel("milliseconds for one image")
    axes.legend(frameon=False, fontsize=_SMALL, loc="lower left")
    _title(axes, "Fewer keys, more rotations")


def _draw_upload(axes: Axes, records: Records) -> None:
    for place, r in enumerate(records):
        measured, most = _measured(r), r["max_upload_bytes"]
        axes.barh(place, measured, color=_BLUE, height=0.5)
        label = f"{measured:.0f} ms, {r['rotations']} rotations, {r['upload_bytes'] / 1000:.0f} kB"
        _note(axes, measured, place, label, (6, 0), "left", "center")
        _note(
            axes,
            0,
            place - 0.28,
            "no limit" if most == "none" else f"at most {most / 1000:.0f} kB of input",
            (2, 0),
            "left",
        )
    axes.set_yticks([])
    axes.set_ylim(len(records) - 0.5, -0.6)
    axes.set_xlim(0, 1.8 * max(_measured(r) for r in records))
    axes.set_xlabel("milliseconds for one image")
    _title(axes, "More ciphertexts of input, less time")


def _draw_ranks(axes: Axes, records: Records) -> None:
    names = [f"rank {r['rank']}" if isinstance(r["rank"], int) else str(r["rank"]) for r in records]
    times = [_measured(r) for r in records]
    axes.barh(names, times, color=_BLUE, height=0.6)
    for place, r in enumerate(records):
        accuracy = f", {100 * r['accuracy']:.1f} %" if "accuracy" in r else ""
        _note(axes, times[place], place, f"{r['rotations']} rotations{accuracy}", (6, 0), "left", "center")
    axes.invert_yaxis()
    axes.set_xlim(0, 1.3 * max(times))
    axes.set_xlabel("milliseconds for one image; accuracy where it was measured, before any fine-tuning")
    _title(axes, "The rank of the factorized convolution")


def _measured(record: Mapping[str, Any]) -> float:
    return 1000 * float(record["eval_cpu_seconds"]["median"])


def _predicted(record: Mapping[str, Any]) -> float:
    """Milliseconds on the machine of the measurement: a table of another one is right in rotations only."""
    rotation = float(record["seal_rotation_cpu_seconds"]["median"])
    return 1000 * rotation * float(record["predicted_ratio_to_seal_rotation"])


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=10, weight="bold")


def _note(
    axes: Axes, x: float, y: float, text: str, offset: tuple[float, float], ha: str = "center", va: str = "bottom"
) -> None:
    axes.annotate(text, (x, y), xytext=offset, textcoords="offset points", ha=ha, va=va, fontsize=_SMALL)
