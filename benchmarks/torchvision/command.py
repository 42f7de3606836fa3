"""torchvision: its networks as heinfer reads, checks, compiles and evaluates them."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from rich.progress import track

from benchmarks.support.options import Backend, Json
from benchmarks.support.records import Record, head, known_records, save_records, write_table
from benchmarks.torchvision.encrypted import encrypted
from benchmarks.torchvision.imported import checked, imported, refused
from benchmarks.torchvision.installed import version
from benchmarks.torchvision.networks import NAMES, REFUSED
from benchmarks.torchvision.small import SMALL
from heinfer.backends import choose_backend
from heinfer.errors import SettingError

_SHOWN = (
    "network", "size", "activations", "difference_float64", "difference_float32", "products", "levels", "ring_degree",
    "bits_predicted", "bits_measured", "refusal", "check_refusal", "failure",
)  # fmt: skip
ALLOWED_FLOAT64, ALLOWED_FLOAT32 = 1e-9, 1e-4
"""Of the largest score: rounding of torch in either precision."""


def torchvision(
    json: Json,
    network: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Of a network; may be repeated.", show_default="all")
    ] = None,
    small: Annotated[bool, typer.Option("--small", help="Those for images of 32 x 32, encrypted.")] = False,
    minutes: Annotated[float, typer.Option(min=0, help="That one network may take in each of its processes.")] = 60,
    check_minutes: Annotated[float, typer.Option(min=0, help="That a check of one may take.")] = 60,
    backend: Backend = None,
) -> None:
    """Import networks of torchvision with random weights, and compare; or evaluate small ones encrypted.

    Records of other networks stay, and are written as they come. Fails when a difference is larger than rounding.
    """
    version()  # SettingError where it is not installed
    size = "small" if small else "own"
    names = tuple(SMALL) if small else (*NAMES, *REFUSED)
    unknown = set(network or ()) - set(names)
    if unknown:
        raise SettingError(f"there is no network {sorted(unknown)[0]}: there are {', '.join(names)}")
    for name in track(network or names, description="torchvision"):
        about = head("torchvision", network=name, size=size, torchvision=version(), weights="random, seed 0")
        if small:
            chosen = choose_backend(backend)
            record = about | {"backend": chosen} | _in_time(minutes, encrypted, name, chosen)
        else:
            record = about | _of_own_size(name, minutes, check_minutes)
        others = [r for r in known_records(json) if (r["network"], r["size"]) != (name, size)]
        save_records(_in_order([*others, record]), json)
    records = known_records(json)
    write_table(records, _SHOWN, json)
    if any(differs(record) for record in records):
        raise typer.Exit(1)


def differs(record: Record) -> bool:
    """Whether scores differ from torch's by more than its rounding."""
    allowed = {
        "difference_float64": ALLOWED_FLOAT64,
        "difference_float32": ALLOWED_FLOAT32,
        "difference_cleartext": ALLOWED_FLOAT64,
    }
    return any(not float(str(record.get(key, 0))) <= most for key, most in allowed.items())


def _of_own_size(name: str, minutes: float, check_minutes: float) -> Record:
    if name in REFUSED:
        return _in_time(minutes, refused, name)
    found = _in_time(check_minutes, checked, name)
    check = {key if key.startswith("check_") else f"check_{key}": value for key, value in found.items()}
    return _in_time(minutes, imported, name) | check


def _in_order(records: Sequence[Record]) -> list[Record]:
    order = [("own", name) for name in (*NAMES, *REFUSED)] + [("small", name) for name in SMALL]
    return sorted(records, key=lambda r: order.index((str(r["size"]), str(r["network"]))))


def _in_time(minutes: float, function: Callable[..., Record], *args: Any) -> Record:
    """What a function says in a process of its own, or that it was not done in time, or died."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_say, args=(there, function, args))
    process.start()
    there.close()
    try:
        if here.poll(60 * minutes):
            result: Record = here.recv()
            return result
    except EOFError:
        return {"failure": "its process died"}
    finally:
        process.kill()
        process.join()
    return {"failure": f"not done in {minutes:g} minutes"}


def _say(there: Any, function: Callable[..., Record], args: tuple[Any, ...]) -> None:
    there.send(function(*args))
