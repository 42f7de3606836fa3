"""Orion's example networks by Orion itself, on the Lattigo that its wheel carries.

Its bindings cannot write a ciphertext or the relinearization key, so their sizes are computed: Lattigo writes 64-bit
words of both polynomials, and a relinearization key is as long as a Galois key, which can be written.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from math import log2
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import Any

import numpy as np
import torch

from benchmarks.peers.channel import serve

_SHIPPED = "LogQ 29, 5 x 26; LogP 29, 29; H 8192: 217 bits, and a secret without zeros"
SMALL: dict[str, Any] = {"LogN": 13, "LogQ": [29, *[26] * 5], "LogP": [27, 27], "LogScale": 26, "H": 5461}
"""What Orion ships for LoLA and MLP but for LogP and H. Its ring is the real subfield's: N slots for N coefficients."""
LARGE: dict[str, Any] = {"LogN": 14, "LogQ": [29, *[26] * 7], "LogP": [29, 29], "LogScale": 26, "H": 10922}
_WHY_SMALL = f"shipped: {_SHIPPED}; LogP 27, 27 makes it 213 of at most 214 bits, H 5461 = 2 N / 3 a ternary secret"
_WHY_LARGE = "none shipped: those of LoLA with a level for each of two more layers, in the next ring"


class Network:
    """One of Orion's models, compiled, with all keys; both halves of the work are in this process."""

    def __init__(self, network: str, arrays: Path) -> None:
        torch.set_num_threads(1)
        _stand_in_for_torchvision()
        import orion  # noqa: PLC0415 - it imports torchvision
        from orion import models  # noqa: PLC0415

        self._orion = orion
        self._parameters, self._why = (LARGE, _WHY_LARGE) if network == "lenet" else (SMALL, _WHY_SMALL)
        with np.load(arrays) as file:
            self._images = torch.from_numpy(file["images"]).float()
            weights = {name: torch.from_numpy(file[name]) for name in file.files if name != "images"}
        started = perf_counter()
        self._scheme = orion.init_scheme(
            {
                "ckks_params": self._parameters | {"RingType": "ConjugateInvariant"},
                "orion": {"margin": 2, "embedding_method": "hybrid", "backend": "lattigo", "fuse_modules": True}
                | {"debug": False, "io_mode": "none"},
            }
        )
        self._net = {"lola": models.LoLA, "mlp": models.MLP, "lenet": models.LeNet}[network]()
        self._net.load_state_dict(weights)
        self._net.eval()
        orion.fit(self._net, self._images[:1])
        self._level = orion.compile(self._net)
        self._net.he()
        self._seconds = perf_counter() - started

    def facts(self) -> dict[str, Any]:
        moduli = self._scheme.encoder.get_moduli_chain()
        degree = 1 << self._parameters["LogN"]
        return {
            "library": f"orion-fhe {version('orion-fhe')}",
            "ring_degree": degree,
            "log_qp": sum(map(log2, moduli)) + sum(self._parameters["LogP"]),
            "levels": self._level,
            "key_bytes": self._key_bytes(),
            "upload_bytes": 2 * 8 * degree * (self._level + 1) * len(self._encrypted(0).ids),
            "compile_seconds": self._seconds,
            "parameters": self._why,
        }

    def evaluate(self, number: int) -> tuple[list[float], float]:
        image = self._encrypted(number)
        started = perf_counter()
        result = self._net(image)
        seconds = perf_counter() - started
        return result.decrypt().decode().flatten().tolist(), seconds

    def _encrypted(self, number: int) -> Any:
        return self._orion.encrypt(self._orion.encode(self._images[number : number + 1], self._level))

    def _key_bytes(self) -> int:
        """Bytes of the keys that the network uses, and not of all powers of two that Orion makes."""
        elements = set(self._scheme.lt_evaluator.saved_rotation_keys)
        degree = 4 * self._scheme.params.get_slots()  # 5 generates the group of the rotations, modulo this
        folds = max(getattr(module, "output_rotations", 0) for module in self._net.modules())
        elements |= {pow(5, self._scheme.params.get_slots() >> fold, degree) for fold in range(1, folds + 1)}
        written, pointer = self._scheme.backend.GenerateAndSerializeRotationKey(min(elements))
        length = len(written)
        self._scheme.backend.FreeCArray(pointer)
        return length * (len(elements) + 1)


def _stand_in_for_torchvision() -> None:
    """Orion imports two modules of torchvision, for data sets that nothing here loads."""
    module = ModuleType("torchvision")
    for name in ("datasets", "transforms"):
        setattr(module, name, ModuleType(f"torchvision.{name}"))
    sys.modules["torchvision"] = module


if __name__ == "__main__":
    serve(Network)
