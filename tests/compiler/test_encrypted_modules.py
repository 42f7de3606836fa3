"""Modules as people write them, from torch to ciphertexts: what is decrypted is what the module computes."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from encrypted import precision_bits
from native_model import NativeModel
from torch import nn
from torch.nn import functional

import heinfer
from heinfer.circuit.counts import count_circuit
from heinfer.formats.manifest import Preprocessing
from heinfer.nn import PolyActivation

RANGE = Preprocessing(divisor=1, mean=(0.0,), std=(1.0,), low=-1.0, high=1.0, kind="values")
LEAST_BITS = 7


class Excited(nn.Module):
    """Squeeze and excitation beside a residual connection, with channels shuffled."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate, self.fc = nn.Conv2d(2, 4, 3, padding="same"), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        y = y * self.gate(y.mean((2, 3)))[:, :, None, None]
        n, c, h, w = y.shape
        y = y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w) + torch.cat([x, -x], 1)
        return self.fc(functional.adaptive_avg_pool2d(y, 1).flatten(1))


class Hourglass(nn.Module):
    """A U-Net of two levels: pool, transposed convolution, bilinear upsampling, concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.act = nn.Conv2d(1, 4, 3, stride=2, padding=1), PolyActivation(4)
        self.up, self.last = nn.ConvTranspose2d(4, 2, 2, stride=2), nn.Conv2d(7, 1, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.act(self.down(x))
        wide = functional.interpolate(y, scale_factor=2, mode="bilinear")
        return self.last(torch.cat([x, self.up(y), wide], 1))


def signal() -> nn.Module:
    """Of one dimension, as of an ECG."""
    return nn.Sequential(
        nn.Conv1d(1, 4, 7, stride=3, padding=3), nn.BatchNorm1d(4), PolyActivation(4), nn.AvgPool1d(3),
        nn.Conv1d(4, 4, 3, padding=1, padding_mode="circular"), nn.Flatten(), nn.LazyLinear(3),
    )  # fmt: skip


class Cubic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(12, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        return self.last(0.2 * y**3 - 0.5 * y + 0.1)


MODULES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "squeeze and excitation": (Excited, (2, 6, 6)),
    "hourglass": (Hourglass, (1, 8, 8)),
    "signal": (signal, (1, 60)),
    "cubic": (Cubic, (12,)),
}


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature:UserWarning")
@pytest.mark.filterwarnings("ignore::heinfer.errors.NoiseWarning")
@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_what_is_decrypted(name: str) -> None:
    make, shape = MODULES[name]
    torch.manual_seed(0)
    module, x = make(), np.random.default_rng(0).uniform(-1, 1, (24, *shape))
    module.eval()(torch.tensor(x, dtype=torch.float32))
    model = heinfer.compile(module, x, name="own", preprocessing=RANGE)
    expected = module.double()(torch.tensor(x[:2])).detach().numpy()
    assert np.abs(model(x[:2]) - expected).max() <= 1e-6 * np.abs(expected).max()
    assert count_circuit(model.bundle.circuit) == model.report.counts
    native = NativeModel(model.bundle)
    program = native.program()
    keys = native.native_keys(program)
    for row, score in zip(x[:2], expected, strict=True):
        results = program.run(native.words(native.encrypt(row)), keys)
        scores = np.ldexp(model.plan.output.unpack(native.decrypt(results)), model.manifest.output.exponent)
        assert precision_bits(scores.reshape(score.shape), score) >= LEAST_BITS
