"""The models that the service serves, and what their manifests imply of the bytes that come in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from heinfer.backends.memory import Memory, key_bytes
from heinfer.ckks.parameters import Parameters
from heinfer.errors import SettingError
from heinfer.formats import bundle as bundles
from heinfer.formats.bindings import manifest_binding
from heinfer.formats.bundle import Bundle
from heinfer.formats.frames import ciphertexts_length, decode_ciphertexts, keys_length, read_keys
from heinfer.runtime import NativeOptions, runtime_memory


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A compiled model, its manifest as the client gets it, and the lengths of the bodies it takes and gives.

    `manifest_digest` is the hexadecimal SHA-256 of the manifest: keys are for the one that they were made from.
    """

    bundle: Bundle
    manifest: bytes
    manifest_digest: str
    parameters: Parameters
    keys_length: int
    inputs_length: int
    outputs_length: int

    @classmethod
    def of(cls, bundle: Bundle) -> ServedModel:
        manifest, parameters = bundle.manifest, bundle.manifest.to_parameters()
        return cls(
            bundle=bundle,
            manifest=manifest.to_bytes(),
            manifest_digest=sha256(manifest.to_bytes()).hexdigest(),
            parameters=parameters,
            keys_length=keys_length(parameters, manifest.keys.levels),
            inputs_length=ciphertexts_length(
                parameters, count=manifest.input.layout.ciphertexts, level=manifest.input.level, seeded=True
            ),
            outputs_length=ciphertexts_length(
                parameters, count=manifest.output.layout.ciphertexts, level=manifest.output.level, seeded=False
            ),
        )

    @property
    def name(self) -> str:
        return self.bundle.manifest.name

    def memory(self, backend: str, options: NativeOptions) -> Memory:
        """What it takes in a worker."""
        plan = self.bundle.manifest.input
        return runtime_memory(
            self.bundle.circuit, self.parameters, plan.level, plan.scale, backend=backend, options=options
        )

    def loaded_key_bytes(self, backend: str) -> int:
        """What one client's keys take in a worker."""
        return key_bytes(self.parameters, self.bundle.manifest.keys.levels, backend)

    def check_keys(self, body: bytes) -> None:
        """Raise what read_keys raises unless `body` is a frame of exactly the evaluation keys of this model."""
        manifest = self.bundle.manifest
        for _ in read_keys(body, self.parameters, manifest.keys_binding, manifest.keys.levels):
            pass

    def check_inputs(self, body: bytes) -> None:
        """Raise what decode_ciphertexts raises unless `body` is a frame of inputs as the plan wants them."""
        plan = self.bundle.manifest.input
        decode_ciphertexts(
            body,
            self.parameters,
            manifest_binding(self.manifest),
            count=plan.layout.ciphertexts,
            level=plan.level,
            scale=plan.scale,
            seeded=True,
        )


def load_models(paths: Sequence[Path]) -> Mapping[str, ServedModel]:
    """Open bundles, by the names of their models.

    Raises:
        BundleError: when a file is no bundle.
        SettingError: when a file is missing, or two have models of one name.
    """
    models: dict[str, ServedModel] = {}
    for path in paths:
        if not path.is_file():
            raise SettingError(f"there is no bundle {path}: name files that heinfer compile wrote")
        model = ServedModel.of(bundles.load(path))
        if model.name in models:
            raise SettingError(f"two bundles hold a model named {model.name}: serve one of them")
        models[model.name] = model
    return models
