"""The peak memory of compiling, as it was predicted and as it was, each in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest
import small_model

WITHIN = 1.25
"""The factor between the two, whichever is larger."""

BESIDE = Path(small_model.__file__).parent  # a script given to Python as text imports from where it runs

PEAK = """
import sys
import numpy as np
from small_model import PIXELS, small_model
from heinfer.compiler.compile import compile_network
from heinfer.formats import bundle
from heinfer.network.ir import Network, Node
from heinfer.network.operators import Convolution, Dense, Flatten, Polynomial
from heinfer.system import peak_bytes

rng = np.random.default_rng(0)

def conv(inputs, outputs):
    return Convolution(rng.normal(size=(outputs, inputs, 3, 3)) / inputs, rng.normal(size=outputs), (1, 1), (1, 1))

def act(planes):
    return Polynomial(np.full(planes, 0.1), np.full(planes, 1.0), np.full(planes, 0.1))

def middle():
    dense = Dense(rng.normal(size=(10, 24576)) / 99, np.zeros(10))
    layers = conv(1, 24), act(24), conv(24, 24), act(24), Flatten(), dense
    network = Network((1, 32, 32), tuple(Node(str(number), layer) for number, layer in enumerate(layers)))
    return compile_network(network, rng.random((16, 1, 32, 32)), name="middle", preprocessing=PIXELS)

model = {"small": small_model, "middle": middle}[sys.argv[1]]()
bundle.save(model, sys.argv[2])
print(model.predicted_peak, peak_bytes(), sum(constant.nbytes for constant in model.bundle.circuit.constants))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("network", "constants"), [("small", 0), ("middle", 40_000_000)])
def test_the_predicted_peak_is_what_is_taken(network: str, constants: int, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", PEAK, network, str(tmp_path / "bundle")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True, cwd=BESIDE)
    predicted, peak, held = map(int, done.stdout.split())
    assert held >= constants
    assert predicted / WITHIN < peak < predicted * WITHIN
