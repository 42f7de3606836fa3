"""The picture of a sweep: what the rank, a batch, fewer keys and a limit on the upload change."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.draw.style import BLUE, ORANGE, Records, note, tidy

_SMALL = 9
_TIME = "predicted_ratio_to_seal_rotation"
_UNIT = "predicted time of one image, in SEAL rotations"


def draw_sweep(records: Records) -> Figure:
    """Throughput and bytes an image by the batch; time by megabytes of keys, by the upload, by the rank."""
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
        tidy(axes)
    network, degree = (records[0][key] for key in ("network", "ring_degree"))
    figure.suptitle(f"{network}, N = {degree}: predicted by the shipped cost table of SEAL, one thread", fontsize=11)
    return figure


def _draw_speed(axes: Axes, records: Records) -> None:
    batches = [r["batch"] for r in records]
    gains = [r["batch"] * records[0][_TIME] / r[_TIME] for r in records]
    axes.plot(batches, gains, "o-", color=BLUE)
    for batch, gain in zip(batches, gains, strict=True):
        note(axes, (batch, gain), f"{gain:.1f}x", (0, 8))
    _by_batch(axes, batches)
    axes.set_ylim(0, 1.2 * max(gains))
    axes.set_ylabel("images in the time of one at a time")
    _title(axes, "A batch shares its rotations")


def _draw_size(axes: Axes, records: Records) -> None:
    batches = [r["batch"] for r in records]
    keys, uploads = ([r[f"{what}_bytes"] / r["batch"] / 1000 for r in records] for what in ("key", "upload"))
    axes.plot(batches, keys, "o-", color=ORANGE, label="keys, sent once")
    axes.plot(batches, uploads, "o-", color=BLUE, label="images, each time")
    for batch, pair in zip(batches, zip(keys, uploads, strict=True), strict=True):
        note(axes, (batch, max(pair)), f"{max(pair):,.0f}", (0, 7))
        note(axes, (batch, min(pair)), f"{min(pair):,.0f}", (0, -7), va="top")
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
    megabytes, times = [r["key_bytes"] / 1e6 for r in records], [r[_TIME] for r in records]
    axes.plot(megabytes, times, "o-", color=BLUE)
    for r, x, y in zip(records, megabytes, times, strict=True):
        note(axes, (x, y), f"{r['keys']}, {r['rotations']}", (4, 5), "left")
    axes.margins(x=0.14)
    axes.set_ylim(0, 1.35 * max(times))
    axes.set_xlabel("MB of evaluation keys")
    axes.set_ylabel(_UNIT)
    _title(axes, "Fewer keys, more rotations (beside a point: keys, rotations)")


def _draw_upload(axes: Axes, records: Records) -> None:
    for place, r in enumerate(records):
        time, most = r[_TIME], r["max_upload_bytes"]
        axes.barh(place, time, color=BLUE, height=0.5)
        label = f"{time:.1f}, {r['rotations']} rotations, {r['upload_bytes'] / 1000:.0f} kB"
        note(axes, (time, place), label, (6, 0), "left", "center")
        limit = "no limit" if most == "none" else f"at most {most / 1000:.0f} kB of input"
        note(axes, (0, place - 0.28), limit, (2, 0), "left")
    axes.set_yticks([])
    axes.set_ylim(len(records) - 0.5, -0.6)
    axes.set_xlim(0, 1.8 * max(r[_TIME] for r in records))
    axes.set_xlabel(_UNIT)
    _title(axes, "More ciphertexts of input, less time")


def _draw_ranks(axes: Axes, records: Records) -> None:
    """By milliseconds: the unfactorized network has fewer levels, so that a rotation of it is shorter."""
    names = [f"rank {r['rank']}" if isinstance(r["rank"], int) else str(r["rank"]) for r in records]
    times = [r["predicted_milliseconds"] for r in records]
    axes.barh(names, times, color=BLUE, height=0.6)
    for place, r in enumerate(records):
        accuracy = f", {100 * r['accuracy']:.1f} %" if "accuracy" in r else ""
        note(axes, (times[place], place), f"{r['rotations']} rotations{accuracy}", (6, 0), "left", "center")
    axes.invert_yaxis()
    axes.set_xlim(0, 1.3 * max(times))
    axes.set_xlabel("predicted milliseconds of one image; accuracy where it was measured, before any fine-tuning")
    _title(axes, "The rank of the factorized convolution")


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=10, weight="bold")
