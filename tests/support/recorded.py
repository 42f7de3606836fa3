"""Tables of documents that follow from records of benchmarks: `python tests/support/recorded.py` writes them anew."""

from __future__ import annotations

import re

from record_tables import BENCHMARKS, ROOT, Record, records, table
from recorded_foreign import foreign_table
from recorded_plans import objectives_table, planning_table, policies_table, published_table
from recorded_torchvision import own_table, small_table


def range_table() -> str:
    """What every measured model made of generated pictures, encrypted, and of test images."""
    columns = {
        "network": "model",
        "limit": "scores up to",
        "encrypted": "pictures, encrypted",
        "encrypted_out_of_range": "out of range",
        "encrypted_uncertain": "uncertain",
        "encrypted_wrong_uncertain": "wrong, uncertain",
        "encrypted_wrong_out_of_range": "wrong, out of range",
        "encrypted_wrong_unmarked": "**wrong, unmarked**",
        "test_images": "test images",
        "test_out_of_range": "out of range",
        "test_wrong_unmarked": "wrong, unmarked",
    }
    return table(
        list(columns.values()),
        [
            [f"{one[key]:,}" if isinstance(one[key], int) else f"{one[key]}" for key in columns]
            for one in records("range")
        ],
    )


def survive_table() -> str:
    """What clients heard of a service that was ended, killed and replaced again and again."""
    (one,) = records("survive")
    rows = [
        ("right answers, each of the version that it names", f"{one['right']:,}"),
        (
            "wrong answers; answers to another request; lost calls; untyped errors",
            _counts(one, "wrong", "mixed_up", "lost", "untyped_errors"),
        ),
        ("service ended (SIGTERM), killed", ", ".join(str(count) for count in one["restarts"].values())),
        ("changes of the versions that are served", str(one["changes_of_versions"])),
        ("calls under way at restarts, median", f"{one['under_way_at_restarts']['median']:g}"),
        ("registrations of keys, of four clients", str(one["registrations"])),
        ("keys lost; processes, files left", _counts(one, "lost_keys", "leaked_processes", "files_left")),
        ("answers of the proxy in the service's place", f"{sum(one['answered_by_proxy'].values()):,}"),
        (
            "typed errors that callers heard",
            ", ".join(f"`{code}` {count:,}" for code, count in one["typed_errors"].items()),
        ),
    ]
    return table(["", ""], rows)


def fairness_table() -> str:
    """What a tenant waits for an answer beside another, and as many times what it waits alone."""
    alone, one, many = (record["answered_seconds"] for record in records("fairness"))
    others = ("asks for nothing", "uses one set of keys", "uses 24 sets in rotation: nearly each request loads keys")
    return table(
        ["the other", "p50, ms", "p95, ms", "p50, times that alone"],
        [
            [other, f"{1e3 * took['p50']:.0f}", f"{1e3 * took['p95']:.0f}", f"{took['p50'] / alone['p50']:.1f}"]
            for other, took in zip(others, (alone, one, many), strict=True)
        ],
    )


def soak_table() -> str:
    """Every kind of fault, and how soon the service answered after it."""
    (one,) = records("soak")
    slowest, not_over = one["slowest_recovery_seconds"], one["faults_not_recovered"]
    return table(
        ["fault", "times", "not got over", "slowest until the next answer, s"],
        [
            [f"`{name}`", str(times), str(not_over.get(name, 0)), f"{slowest[name]:.1f}"]
            for name, times in sorted(one["faults"].items())
        ],
    )


def soak_counts_table() -> str:
    """What half an hour of faults left."""
    (one,) = records("soak")
    rows = [
        ("minutes", f"{one['minutes']:g}"),
        ("right answers, wrong answers", f"{one['right']:,}, {one['wrong']}"),
        ("bits of precision, least", f"{one['precision_bits_min']:g}"),
        ("registrations of new keys", str(one["registrations_of_newcomers"])),
        ("keys lost; processes, files left", _counts(one, "lost_keys", "leaked_processes", "files_left")),
        ("bytes refused", ", ".join(f"`{code}` {count}" for code, count in one["errors_answered"].items())),
        (
            "errors that callers heard",
            ", ".join(f"`{code}` {count}" for code, count in one["errors_of_callers"].items()),
        ),
        (
            "MB of the process that speaks HTTP, second and last quarter",
            f"{one['main_mb_second_quarter']:.0f}, {one['main_mb_last_quarter']:.0f}",
        ),
        (
            "its open files, second and last quarter",
            _counts(one, "descriptors_second_quarter", "descriptors_last_quarter"),
        ),
        ("MB of all processes, most", f"{one['total_mb_most']:.0f}"),
    ]
    return table(["", ""], rows)


def _curve(name: str) -> list[Record]:
    return [one for one in records("sweep") if one["curve"] == name]


def _rotations(one: Record) -> str:
    return f"{one['predicted_ratio_to_seal_rotation']:.1f}"


def batches_table() -> str:
    """Batches, and what they gain."""
    head = ["batch", "rotations", "HMA", "in SEAL rotations", "times one at a time", "kB up an image", "MB of keys"]
    single = _curve("batch")[0]["predicted_milliseconds"]
    return table(
        head,
        [
            [
                *(f"{one[key]:,}" for key in ("batch", "rotations", "hma")),
                _rotations(one),
                f"{one['batch'] * single / one['predicted_milliseconds']:.1f}",
                f"{one['upload_bytes'] / one['batch'] / 1000:.0f}",
                f"{one['key_bytes'] / 1e6:.1f}",
            ]
            for one in _curve("batch")
        ],
    )


def keys_table() -> str:
    """Limits on the keys, and the time that they cost."""
    fastest = _curve("key limit")[0]["predicted_milliseconds"]
    return table(
        ["limit on keys", "keys", "MB, sent once", "rotations", "in SEAL rotations", "time to the fastest"],
        [
            [
                "none" if one["max_key_bytes"] == "none" else f"{one['max_key_bytes'] / 1e6:.0f} MB",
                str(one["keys"]),
                f"{one['key_bytes'] / 1e6:.1f}",
                str(one["rotations"]),
                _rotations(one),
                f"{one['predicted_milliseconds'] / fastest:.2f}",
            ]
            for one in _curve("key limit")
        ],
    )


def upload_table() -> str:
    """The shipped limit on the upload, and none."""
    shipped = _curve("upload limit")[0]["predicted_milliseconds"]
    return table(
        ["limit on the upload", "kB up an image", "rotations", "in SEAL rotations", "time to the shipped"],
        [
            [
                "none" if one["max_upload_bytes"] == "none" else f"{one['max_upload_bytes'] / 1000:.0f} kB",
                f"{one['upload_bytes'] / 1000:.0f}",
                str(one["rotations"]),
                _rotations(one),
                f"{one['predicted_milliseconds'] / shipped:.2f}",
            ]
            for one in _curve("upload limit")
        ],
    )


def ranks_table() -> str:
    """Ranks of the second convolution, and none."""
    shipped = next(one for one in _curve("rank") if one["rank"] == 4)["predicted_milliseconds"]
    return table(
        ["rank", "levels", "rotations", "HMA", "in SEAL rotations", "time to the shipped", "accuracy"],
        [
            [
                *(str(one[key]) for key in ("rank", "levels", "rotations", "hma")),
                _rotations(one),
                f"{one['predicted_milliseconds'] / shipped:.2f}",
                f"{100 * one['accuracy']:.2f} %" if "accuracy" in one else "",
            ]
            for one in _curve("rank")
        ],
    )


def prediction_table() -> str:
    """Measured and predicted processor time of every model, to the figures that the picture has."""
    ratios = "calibrated_over_measured", "shipped_over_measured", "shipped_over_measured_in_rotations"
    head = ["network", "N", "measured s", "predicted s", "predicted / measured", "by the shipped table"]
    return table(
        [*head, "the same, counted in rotations"],
        [
            [
                f"`{one['network']}`",
                str(one["ring_degree"]),
                f"{one['eval_cpu_seconds']['median']:.3f}",
                f"{one['calibrated_seconds']:.3f}",
                *(f"{one[ratio]:.2f}" for ratio in ratios),
            ]
            for one in records("prediction")
        ],
    )


def precision_table() -> str:
    """Bits of the scores that are right, predicted and measured, of every network."""
    return table(
        ["network", "weights", "N", "levels", "backend", "predicted", "measured", "difference", "noisiest layer"],
        [
            [
                f"`{one['network']}`",
                one["weights"],
                str(one["ring_degree"]),
                str(one["levels"]),
                one["backend"],
                *(f"{one[bits]:.1f}" for bits in ("bits_predicted", "bits_measured")),
                f"{one['difference']:+.2f}",
                f"`{one['noisiest']}`",
            ]
            for one in records("precision")
        ],
    )


def constants_table() -> str:
    """What an evaluation takes under a limit on its constants, which are made of coefficients, or all of slots."""
    head = ["network", "limit", "MB of constants", "s", "s, of slots", "times without a limit", "predicted / measured"]
    found = {(one["network"], one["share"], one["made_of"]): one for one in records("constants")}
    rows = []
    for (network, share, made_of), one in found.items():
        if made_of != "slots":
            seconds, whole = (_cpu(o) for o in (one, found[network, 1.0, "nothing"]))
            slots = found.get((network, share, "slots"))
            limit = f"{share:.0%}".replace("%", " %") if share < 1 else "none"
            sizes = [f"{one['constant_bytes'] / 1e6:,.0f}", f"{seconds:.3g}", f"{_cpu(slots):.3g}" if slots else ""]
            ratios = [f"{seconds / whole:.2f}", f"{1 / one['native_over_predicted']:.2f}"]
            rows.append([f"`{network}`" if share == 1 else "", limit, *sizes, *ratios])
    return table(head, rows)


def compiled_table() -> str:
    """What compiling that network took."""
    head = ["processor s", "s by the clock", "peak, GB", "predicted peak, GB", "bundle, MB", "keys, MB"]
    one = records("constants-limited")[0]
    sizes = [f"{one[key] / 1e9:.2f}" for key in ("compile_peak_bytes", "predicted_peak_bytes")]
    sizes += [f"{one[key] / 1e6:.0f}" for key in ("bundle_bytes", "key_bytes")]
    return table(head, [[f"{one[key]:.0f}" for key in ("compile_cpu_seconds", "compile_seconds")] + sizes])


def limited_table() -> str:
    """What a network that was compiled whole takes under limits in bytes, on two threads and on one."""
    head = ["limit, GB", "GB of constants", "s, two threads", "s, one thread", "processor s", "bits, least"]
    rows: dict[int, list[Record]] = {}
    for one in records("constants-limited"):
        rows.setdefault(one["limit_bytes"], []).append(one)
    return table(
        [*head, "peak of the process, GB"],
        [
            [
                f"{limit / 1e9:.0f}",
                f"{found[0]['constant_bytes'] / 1e9:.1f}",
                *(f"{one['eval_seconds']['median']:.1f}" for one in found),
                f"{found[1]['answer_cpu_seconds']:.1f}",
                f"{min(one['precision_bits'] for one in found):.1f}",
                f"{max(one['process_peak_bytes'] for one in found) / 1e9:.1f}",
            ]
            for limit, found in rows.items()
        ],
    )


def neighbour_table() -> str:
    """What two threads take beside a busy process, in times of one thread."""
    head = ["network", "beside", "wall time, in times of one thread", "processors"]
    return table(
        head,
        [
            [f"`{one['network']}`", one["beside"], f"{one['times_one_thread']:.2f}", f"{one['processors']:.2f}"]
            for one in records("neighbour")
            if one["threads"] == 2
        ],
    )


def _cpu(one: Record) -> float:
    return float(one["eval_cpu_seconds"]["median"])


TABLES = {
    "constants": (BENCHMARKS, constants_table),
    "foreign": (BENCHMARKS, foreign_table),
    "compiled": (BENCHMARKS, compiled_table),
    "limited": (BENCHMARKS, limited_table),
    "neighbour": (ROOT / "docs" / "design" / "native.md", neighbour_table),
    "fairness": (ROOT / "docs" / "service.md", fairness_table),
    "soak": (ROOT / "docs" / "service.md", soak_table),
    "soak-counts": (ROOT / "docs" / "service.md", soak_counts_table),
    "range": (BENCHMARKS, range_table),
    "survive": (ROOT / "docs" / "service.md", survive_table),
    "planning": (BENCHMARKS, planning_table),
    "published": (BENCHMARKS, published_table),
    "torchvision": (BENCHMARKS, own_table),
    "torchvision-small": (BENCHMARKS, small_table),
    "policies": (BENCHMARKS, policies_table),
    "objectives": (BENCHMARKS, objectives_table),
    "batches": (BENCHMARKS, batches_table),
    "keys": (BENCHMARKS, keys_table),
    "upload": (BENCHMARKS, upload_table),
    "ranks": (BENCHMARKS, ranks_table),
    "prediction": (BENCHMARKS, prediction_table),
    "precision": (BENCHMARKS, precision_table),
}


def filled(name: str) -> str:
    """The document, with its table as it should be."""
    document, made = TABLES[name]
    pattern = rf"(<!-- {name} -->\n)(?:\|[^\n]*\n)*(<!-- end -->)"
    text, count = re.subn(pattern, lambda found: f"{found[1]}{made()}\n{found[2]}", document.read_text())
    assert count == 1, name
    return text


def _counts(record: Record, *keys: str) -> str:
    return ", ".join(str(record[key]) for key in keys)


if __name__ == "__main__":
    for name, (document, _) in TABLES.items():
        document.write_text(filled(name))
