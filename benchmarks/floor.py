"""floor: what evaluating a shipped network takes at least on this machine, beside what it takes natively."""

from __future__ import annotations

from statistics import median
from time import perf_counter, thread_time

from rich.progress import track

from benchmarks.kernels import KernelSpeed, measure_kernels
from benchmarks.options import Json
from benchmarks.records import Record, plan_record, save_records, show_table, spread
from benchmarks.rotation import Rotation
from benchmarks.samples import image_for
from benchmarks.subject import Subject
from heinfer.backends.memory import key_bytes
from heinfer.backends.native import NativeKeys, NativeOptions, NativePlan, NativeProgram, NativeRing
from heinfer.backends.native.ring import Words
from heinfer.backends.native.work import work_of_all
from heinfer.formats import bundle
from heinfer.formats.bundle import Bundle
from heinfer.formats.frames import decode_ciphertexts, decode_keys
from heinfer.measurement.machine import describe_machine, today
from heinfer.zoo import BUNDLES

ROUNDS = 15
THREADS = 2

_COLUMNS = {
    "network": "network",
    "ratio_to_seal_rotation": "SEAL rotations",
    "ratio_to_seal_rotation_2_threads": "on two threads",
    "speedup_2_threads": "two threads / one",
    "streamed_bytes": "bytes",
    "forward_transforms": "forward",
    "inverse_transforms": "inverse",
    "products": "multiply-adds",
    "floor_seconds": "floor",
    "achieved_over_floor": "achieved / floor",
}


def floor(json: Json) -> None:
    """Time every shipped network natively, and the bytes and the arithmetic that no evaluation of it can do without."""
    records = [_record(bundle.load(path)) for path in sorted(BUNDLES.glob("*.heinfer"))]
    save_records(records, json)
    show_table(records, _COLUMNS, json)


def _record(model: Bundle) -> Record:
    evaluations = NativeEvaluations(model)
    for _ in track(range(ROUNDS), description=model.manifest.name):
        evaluations.add()
    kernels, plan = measure_kernels(model.manifest.to_parameters()), evaluations.plan
    cpu, rotation = median(evaluations.cpu), median(evaluations.rotations)
    alone, together = median(evaluations.wall[1]), median(evaluations.wall[THREADS])
    return plan_record("floor", model) | {
        "backend": "native",
        "instruction_set": evaluations.instruction_set,
        "rotations_hoisted": evaluations.executed.rotations_hoisted,
        "eval_seconds": spread(evaluations.wall[1]),
        "eval_cpu_seconds": spread(evaluations.cpu),
        f"eval_seconds_{THREADS}_threads": spread(evaluations.wall[THREADS]),
        "seal_rotation_seconds": spread(evaluations.rotations_wall),
        "seal_rotation_cpu_seconds": spread(evaluations.rotations),
        "ratio_to_seal_rotation": round(cpu / rotation, 2),
        f"ratio_to_seal_rotation_{THREADS}_threads": round(together / median(evaluations.rotations_wall), 2),
        f"speedup_{THREADS}_threads": round(alone / together, 2),
        "run_bytes": plan.run_bytes(),
        **_floor(plan, kernels, cpu),
        **kernels.record(),
        "machine": describe_machine(),
        "date": today(),
    }


def _floor(plan: NativePlan, kernels: KernelSpeed, achieved: float) -> Record:
    """The larger of the time to read all keys and plaintexts once, and of the arithmetic in the nearest caches."""
    keys, plaintexts = key_bytes(plan.typed.parameters, plan.typed.key_levels, "native"), plan.constant_bytes
    work = work_of_all(plan.instructions, plan.residues)
    streaming, arithmetic = (keys + plaintexts) / kernels.bytes_a_second, kernels.seconds(work)
    return {
        "streamed_key_bytes": keys,
        "streamed_plaintext_bytes": plaintexts,
        "streamed_bytes": keys + plaintexts,
        "forward_transforms": work.forward,
        "inverse_transforms": work.inverse,
        "products": work.products,
        "streaming_seconds": float(f"{streaming:.4g}"),
        "arithmetic_seconds": float(f"{arithmetic:.4g}"),
        "floor_seconds": float(f"{max(streaming, arithmetic):.4g}"),
        "achieved_over_floor": round(achieved / max(streaming, arithmetic), 2),
    }


class NativeEvaluations:
    """A model with keys and an encrypted image on the native backend, and the seconds of its evaluations so far.

    Attributes:
        wall: seconds of each evaluation, by the number of threads.
        cpu: seconds of the processor of those on one thread.
        rotations: seconds of the processor of a rotation of SEAL before and after each.
        rotations_wall: seconds of the same.
    """

    def __init__(self, model: Bundle) -> None:
        subject, manifest = Subject(model), model.manifest
        parameters = manifest.to_parameters()
        self._rotation = Rotation(subject)
        ring = NativeRing.secure(parameters)
        self.instruction_set = ring.instruction_set
        self._programs = {threads: NativeProgram(model.typed, ring, NativeOptions(threads)) for threads in (1, THREADS)}
        self.plan = self._programs[1].plan
        self._keys = NativeKeys(ring, model.typed.key_levels)
        for key in decode_keys(subject.keys, parameters, manifest.keys_binding, manifest.keys.levels):
            self._keys.add(key.step, key.digits, [seed.data for seed in key.seeds])
        self._inputs = _encrypted(subject, ring)
        self.wall: dict[int, list[float]] = {threads: [] for threads in self._programs}
        self.cpu: list[float] = []
        self.rotations: list[float] = []
        self.rotations_wall: list[float] = []
        for program in self._programs.values():
            program.run(self._inputs, self._keys)
        self.executed = self._programs[1].executed

    def add(self) -> None:
        """Evaluate once more on every number of threads, between rotations."""
        for threads, program in self._programs.items():
            self._rotate()
            started, cpu_started = perf_counter(), thread_time()
            program.run(self._inputs, self._keys)
            if threads == 1:
                self.cpu.append(thread_time() - cpu_started)
            self.wall[threads].append(perf_counter() - started)
            self._rotate()

    def _rotate(self) -> None:
        started = thread_time()
        self.rotations_wall.append(self._rotation.seconds())
        self.rotations.append(thread_time() - started)


def _encrypted(subject: Subject, ring: NativeRing) -> list[tuple[Words, Words]]:
    """Ciphertexts of an image, parsed."""
    manifest, parameters = subject.codec.manifest, ring.parameters
    level, scale = manifest.input.level, manifest.input.scale
    image = subject.codec.read_image(image_for(subject.codec.manifest))
    frames = subject.codec.encrypt(subject.secret, [image])
    count = manifest.input.layout.ciphertexts
    inputs = []
    for frame in decode_ciphertexts(
        frames, parameters, subject.codec.binding, count=count, level=level, scale=scale, seeded=True
    ):
        assert frame.seed is not None
        inputs.append((frame.c0, ring.expand(frame.seed.data, parameters.primes_at(level))))
    return inputs
