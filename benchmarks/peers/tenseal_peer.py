"""TenSEAL's tutorial 4 ("Encrypted Convolution on MNIST"): its parameters, and its network through its own API."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import tenseal as ts

from benchmarks.peers.channel import serve

RING_DEGREE = 8192
PRIME_BITS = (31, 26, 26, 26, 26, 26, 26, 31)
SCALE_BITS = 26
KERNEL, STRIDE = 7, 3


class Tutorial:
    """The client's context with all of its keys, the server's with the public ones, and the weights."""

    def __init__(self, network: str, arrays: Path) -> None:
        assert network == "tutorial"
        started = perf_counter()
        with np.load(arrays) as file:
            self._images = file["images"]
            weights = {name: file[name] for name in file.files}
        self._kernels = weights["conv1.weight"][:, 0].tolist()
        self._shifts = weights["conv1.bias"].tolist()
        self._dense = [
            (weights[f"{name}.weight"].T.tolist(), weights[f"{name}.bias"].tolist()) for name in ("fc1", "fc2")
        ]
        self._client = ts.context(ts.SCHEME_TYPE.CKKS, RING_DEGREE, coeff_mod_bit_sizes=list(PRIME_BITS), n_threads=1)
        self._client.global_scale = 2**SCALE_BITS
        self._client.generate_galois_keys()
        public = self._client.serialize(save_secret_key=False)
        self._key_bytes = len(public)
        self._server = ts.context_from(public, n_threads=1)
        self._seconds = perf_counter() - started

    def facts(self) -> dict[str, Any]:
        upload, _ = self._encrypted(0)
        context = self._client.seal_context().data.key_context_data()
        return {
            "library": f"tenseal {ts.__version__}",
            "ring_degree": RING_DEGREE,
            "log_qp": context.total_coeff_modulus_bit_count(),
            "levels": len(PRIME_BITS) - 2,
            "key_bytes": self._key_bytes,
            "upload_bytes": len(upload),
            "compile_seconds": self._seconds,
            "parameters": "as in the tutorial: within SEAL's table of 218 bits, above the 214 that heinfer keeps to",
        }

    def evaluate(self, number: int) -> tuple[list[float], float]:
        upload, windows = self._encrypted(number)
        image = ts.ckks_vector_from(self._server, upload)
        started = perf_counter()
        result = self._forward(image, windows)
        seconds = perf_counter() - started
        answer = ts.ckks_vector_from(self._client, result.serialize())
        return answer.decrypt(), seconds

    def _encrypted(self, number: int) -> tuple[bytes, int]:
        vector, windows = ts.im2col_encoding(self._client, self._images[number, 0].tolist(), KERNEL, KERNEL, STRIDE)
        return vector.serialize(), windows

    def _forward(self, image: Any, windows: int) -> Any:
        pairs = zip(self._kernels, self._shifts, strict=True)
        x = ts.CKKSVector.pack_vectors([image.conv2d_im2col(kernel, windows) + shift for kernel, shift in pairs])
        for matrix, shift in self._dense:
            x.square_()
            x = x.mm(matrix) + shift
        return x


if __name__ == "__main__":
    serve(Tutorial)
