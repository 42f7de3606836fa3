"""The report of a compiled model: everything a user may ask before paying for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import inf, ldexp, log2, nan
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from heinfer.backends import choose_backend
from heinfer.brief import brief_repr
from heinfer.circuit.counts import Counts, count_layers
from heinfer.circuit.ir import Kind
from heinfer.circuit.statistics import MARGIN
from heinfer.circuit.worst_case import Interval, worst_cases
from heinfer.compiler.precision import BITS, BITS_BY_LAYER
from heinfer.costs.cost import Cost, circuit_cost
from heinfer.costs.memory import peak_ciphertexts
from heinfer.costs.prediction import predict
from heinfer.costs.tables import CostTable, cost_tables, table_of
from heinfer.formats.bundle import Bundle
from heinfer.formats.manifest import Manifest, Preprocessing

_BITS_BY_LAYER = TypeAdapter(dict[str, float])


@dataclass(frozen=True)
class LayerReport:
    """One layer: where its values are, how it is evaluated, what it costs, how large its values get.

    ``largest`` is what calibration saw. ``headroom`` is how many bits values may exceed their bounds by, which are half
    as much again: those of the last layer decide whether scores can wrap around. ``worst_case`` bounds the values of
    any input that a client can send; it is None where they could wrap around. ``precision_bits`` of the scores would be
    left if this layer alone were noisy, predicted at the worst of 200 images; None where the bundle does not say.
    """

    name: str
    kernel: str
    layout_in: str
    layout_out: str
    level: int
    scale_bits: float
    counts: Counts
    milliseconds: float
    largest: float
    headroom: float
    worst_case: float | None
    precision_bits: float | None

    __repr__ = brief_repr


@dataclass(frozen=True, eq=False, kw_only=True)
class Report(Cost):
    """A compiled model's costs; of one request, which holds ``batch`` images.

    ``policy`` chose layouts and kernels. ``backend`` is the one that layers are priced for. ``peak_ciphertexts``
    are alive at once. ``largest_score`` is what calibration saw of the output with the largest, ``capacity`` the score
    from which on its scores wrap around, ``precision`` what was predicted of the scores' bits when the model was
    compiled, ``encryption_bits`` of them if encryption alone were noisy. ``inputs`` and ``outputs`` say name, shape and
    kind of each.
    """

    name: str
    policy: str
    backend: str
    batch: int
    layers: tuple[LayerReport, ...]
    peak_ciphertexts: int
    memory_bytes: int
    largest_score: float
    capacity: float
    precision: str | None
    encryption_bits: float | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    __repr__ = brief_repr

    def _about(self) -> str:
        return (
            f"{self.name}: {self.counts.rotations} rotations, {len(self.key_levels)} evaluation keys, "
            f"{self.predicted.get(self.backend, nan):.0f} ms on {self.backend}, {self.memory_bytes:,} bytes of memory"
        )

    @property
    def milliseconds(self) -> float:
        """Predicted time on the backend, one thread."""
        return self.predicted[self.backend]

    @property
    def milliseconds_an_image(self) -> float:
        """Predicted time of a full batch, divided by its images."""
        return self.milliseconds / self.batch


def report(bundle: Bundle, backend: str | None = None, costs: Path | None = None) -> Report:
    """Report on a bundle, by the cost tables of a file, by default the shipped ones.

    Args:
        backend: that layers are priced for; by default the one that would run here.

    Raises:
        FormatError: when the file is no file of cost tables.
        PlanError: when it has none of the backend.
    """
    manifest, circuit, typed = bundle.manifest, bundle.circuit, bundle.typed
    parameters = typed.parameters
    tables = cost_tables(parameters.ring_degree, costs)
    shown = shown_backend(tables) if backend is None else backend
    table = table_of(tables, shown)
    cost = circuit_cost(circuit, parameters, typed.input_level, tables)
    largest = max(manifest.outputs, key=lambda part: part.exponent)
    return Report(
        **vars(cost),
        name=manifest.name,
        policy=_printable(bundle.metadata.get("policy", "heinfer")),
        backend=shown,
        batch=manifest.batch,
        layers=_layers(bundle, table),
        peak_ciphertexts=peak_ciphertexts(circuit),
        largest_score=ldexp(max(bundle.bounds[o] for o in circuit.outputs) / MARGIN, largest.exponent),
        capacity=manifest.capacity_of(largest),
        precision=_printable(bundle.metadata.get(BITS, "")) or None,
        encryption_bits=_bits_by_layer(bundle).get("encryption"),
        inputs=tuple(
            f"{own.name} {own.shape}, {_taken(part.preprocessing)}"
            for own, part in zip(manifest.input_parts, manifest.inputs, strict=True)
        ),
        outputs=tuple(
            f"{own.name} {own.shape}, {part.kind}"
            for own, part in zip(manifest.output_parts, manifest.outputs, strict=True)
        ),
    )


def shown_backend(tables: Collection[str]) -> str:
    """Of the backends that there are cost tables of, the one that would run here; any, where that has none."""
    running = choose_backend()
    return running if running in tables else min(tables)


def _taken(preprocessing: Preprocessing) -> str:
    """What an input is given as."""
    if preprocessing.features is None:
        return preprocessing.kind
    return f"{preprocessing.kind} of named features"


def _printable(text: str) -> str:
    """Free text of a bundle, which goes to terminals."""
    return "".join(c for c in text if c.isprintable())


def _layers(bundle: Bundle, table: CostTable) -> tuple[LayerReport, ...]:
    circuit, types = bundle.circuit, bundle.typed.types
    milliseconds = predict(circuit, bundle.typed.levels, table)
    worst = worst_cases(circuit, _input_intervals(bundle.manifest))
    room = [bundle.typed.parameters.capacity(kind.level, kind.scale) for kind in types]
    reports, bits = [], _bits_by_layer(bundle)
    for layer, numbers, counts in zip(circuit.layers, circuit.by_layer, count_layers(circuit), strict=True):
        made = numbers[-1]
        reports.append(
            LayerReport(
                layer.name,
                layer.kernel,
                layer.layout_in,
                layer.layout_out,
                level=max(
                    (
                        types[a].level
                        for n in numbers
                        if circuit.ops[n].kind is not Kind.DROP_LEVEL
                        for a in circuit.ops[n].args
                    ),
                    default=types[made].level,
                ),
                scale_bits=log2(types[made].scale),
                counts=counts,
                milliseconds=sum(milliseconds[number] for number in numbers),
                largest=bundle.bounds[made] / MARGIN,
                headroom=min((log2(room[n] / bundle.bounds[n]) for n in numbers if bundle.bounds[n]), default=inf),
                worst_case=worst[made] if all(worst[n] < room[n] for n in numbers) else None,
                precision_bits=bits.get(layer.name),
            )
        )
    return tuple(reports)


def _bits_by_layer(bundle: Bundle) -> Mapping[str, float]:
    """What the metadata, which anyone may have written, say of bits by layer; nothing where they are malformed."""
    try:
        return _BITS_BY_LAYER.validate_json(bundle.metadata.get(BITS_BY_LAYER, "{}"))
    except ValidationError:
        return {}


def _input_intervals(manifest: Manifest) -> list[Interval]:
    """What the slots of a request can hold."""
    first = manifest.input.layout
    low, high = np.zeros((2, first.ciphertexts, first.slots))
    for part, own in zip(manifest.inputs, manifest.input_parts, strict=True):
        layout, spread = part.layout.to_layout(), part.preprocessing.over(own.shape)
        low += layout.pack(np.broadcast_to(spread.low, layout.shape))
        high += layout.pack(np.broadcast_to(spread.high, layout.shape))
    return list(zip(low, high, strict=True))
