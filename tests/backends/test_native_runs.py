"""Runs from outside: progress, cancelling, several threads on one program, and memory that stays flat."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from circuits import SCALE, Builder
from rings import tiny_parameters
from twin import Twin

from heinfer.backends.control import RunControl
from heinfer.backends.native import NativeKeys, NativeOptions, NativeProgram, NativeRing
from heinfer.backends.native.library import library
from heinfer.circuit.ir import Circuit, Kind
from heinfer.circuit.typed import TypedCircuit
from heinfer.errors import BackendError, CancelledError, MissingKeyError

PARAMETERS = tiny_parameters(4096, (30, 28, 28, 28), 30)
LEVEL = PARAMETERS.top_level
TWIN = Twin(PARAMETERS, (1, 2))
RING = NativeRing(PARAMETERS)


def chain(length: int) -> Circuit:
    """Rotations one after the other."""
    b = Builder(PARAMETERS.slots)
    value = b.input()
    for _ in range(length):
        value = b.op(Kind.ROTATE, value, step=1)
    return b.circuit(value)


def loaded(circuit: Circuit, threads: int = 1) -> tuple[NativeProgram, NativeKeys]:
    program = NativeProgram(TypedCircuit(circuit, PARAMETERS, LEVEL, SCALE), RING, NativeOptions(threads))
    return program, TWIN.native_keys(RING, program)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize("threads", [1, 2])
def test_a_run_cancelled_by_another_thread_ends_and_the_next_one_is_right(threads):
    program, keys = loaded(chain(10_000), threads)
    inputs = TWIN.ciphertexts(1, LEVEL)
    control, seen, failures = library().Control(), [0], []

    def run() -> None:
        try:
            program.run(inputs, keys, control)
        except CancelledError as error:
            failures.append(error)

    runner = threading.Thread(target=run)
    runner.start()
    while len(seen) < 4 and runner.is_alive():  # the interpreter is free while the library runs
        if control.done > seen[-1]:
            seen.append(control.done)
        time.sleep(0.0005)
    control.cancel()
    runner.join()
    assert len(failures) == 1
    assert seen == sorted(seen)
    assert 0 < seen[-1] <= control.done < program.steps == 10_000
    short, short_keys = loaded(chain(5), threads)
    with pytest.raises(CancelledError):
        short.run(inputs, short_keys, cancelled())
    expected = TWIN.on_seal(short.typed.circuit, inputs, LEVEL, SCALE)
    done = library().Control()
    np.testing.assert_array_equal(short.run(inputs, short_keys, done), expected)
    assert done.done == short.steps == 5


def cancelled() -> RunControl:
    control = library().Control()
    control.cancel()
    return control


def test_cancelled_runs_leave_nothing_behind():
    program, keys = loaded(chain(3000))
    inputs = TWIN.ciphertexts(1, LEVEL)
    ends = {CancelledError: 0, None: 0}

    def cancel_some(count: int) -> None:
        for number in range(count):
            control = library().Control()
            timer = threading.Timer(0.0005 * (number % 5), control.cancel)
            timer.start()
            try:
                program.run(inputs, keys, control)
                ends[None] += 1  # the timer came late
            except CancelledError:
                ends[CancelledError] += 1
            timer.join()

    cancel_some(20)
    before = resident_bytes()
    cancel_some(200)
    assert ends[CancelledError] > 150
    output = PARAMETERS.ring_degree * 2 * (LEVEL + 1) * 4
    assert resident_bytes() - before < 20 * output  # a run that kept its output or its arena would keep 150


def test_threads_that_run_one_program_wait_for_each_other():
    program, keys = loaded(chain(20))
    every = [Twin(PARAMETERS, (1, 2), seed=seed).ciphertexts(1, LEVEL) for seed in range(4)]
    expected = [program.run(inputs, keys) for inputs in every]
    results: list[list[np.ndarray]] = [[] for _ in every]

    def run(number: int) -> None:
        for _ in range(5):
            results[number] = program.run(every[number], keys)
            np.testing.assert_array_equal(results[number], expected[number])

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(results, expected)


def test_a_result_outlives_its_program():
    program, keys = loaded(chain(2))
    inputs = TWIN.ciphertexts(1, LEVEL)
    (result,) = program.run(inputs, keys)
    copy = result.copy()
    program.run(Twin(PARAMETERS, (1,), seed=9).ciphertexts(1, LEVEL), keys)
    del program, keys
    np.testing.assert_array_equal(result, copy)


def test_missing_keys_and_inputs_are_named():
    program, keys = loaded(chain(1))
    with pytest.raises(BackendError, match="takes 1 ciphertexts, got 2"):
        program.run(TWIN.ciphertexts(2, LEVEL), keys)
    with pytest.raises(MissingKeyError, match="rotation by 1"):
        program.run(TWIN.ciphertexts(1, LEVEL), NativeKeys(RING, program.typed.key_levels))


def test_a_key_that_nothing_needs_is_not_kept():
    _, keys = loaded(chain(1))
    before = keys.bytes
    frame = TWIN.keys[-1]
    assert frame.step == 2
    keys.add(frame.step, frame.digits, [seed.data for seed in frame.seeds])
    assert keys.bytes == before > 0


WITHOUT_ROOM = """
import resource, sys
sys.path[:0] = ["tests/backends", "tests/support"]
from test_native_runs import LEVEL, TWIN, chain, loaded
program, keys = loaded(chain(1), threads=256)
inputs = TWIN.ciphertexts(1, LEVEL)
size = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (size + (64 << 20), size + (64 << 20)))
try:
    program.run(inputs, keys)
except RuntimeError:
    print("refused", flush=True)
"""


def test_threads_that_the_system_does_not_give_are_an_error_and_not_the_end():
    # A process without memory for their stacks; one that was aborted prints nothing.
    command = ["sh", "-c", 'ulimit -s 8192; exec "$@"', "sh", sys.executable, "-c", WITHOUT_ROOM]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr
