"""The models that are served, in all their versions, and what their manifests imply of the bytes that come in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

from heinfer.backends import NativeOptions, runtime_memory
from heinfer.backends.memory import Memory, key_bytes
from heinfer.ckks.parameters import Parameters
from heinfer.errors import ManifestRequiredError, SettingError, UnknownManifestError, UnknownModelError
from heinfer.formats import bundle as bundles
from heinfer.formats.bindings import manifest_binding
from heinfer.formats.bundle import Bundle
from heinfer.formats.frames import Levels, ciphertexts_length, decode_ciphertexts, keys_length, read_keys
from heinfer.formats.manifest import Manifest
from heinfer.formats.residues import CiphertextFrame
from heinfer.formats.signature import digest_of_file, signer_of


def digest_of(manifest: Manifest) -> str:
    """Hexadecimal SHA-256 of a manifest's bytes, by which requests name a version of a model."""
    return manifest_binding(manifest.to_bytes()).hex()


@dataclass(frozen=True, eq=False)
class KeySet:
    """Evaluation keys as a manifest wants them. Models that want the same share what is registered.

    Attributes:
        binding: digest of all that such keys depend on (heinfer.formats.bindings).
        parameters: ring and primes.
        levels: the level of every key by its step.
        length: bytes of a frame of them.
    """

    binding: bytes
    parameters: Parameters
    levels: Levels
    length: int

    @classmethod
    def of(cls, manifest: Manifest) -> KeySet:
        parameters, levels = manifest.to_parameters(), manifest.keys.levels
        return cls(manifest.keys_binding, parameters, levels, keys_length(parameters, levels))

    @property
    def digest(self) -> str:
        """The binding, hexadecimal: what stored keys are known by."""
        return self.binding.hex()

    def check(self, body: bytes) -> None:
        """Raise what read_keys raises unless `body` is a frame of exactly these evaluation keys."""
        for _ in read_keys(body, self.parameters, self.binding, self.levels):
            pass


@dataclass(frozen=True, eq=False)
class ServedModel:
    """One version of a model, its manifest as the client gets it, and the lengths of the bodies it takes and gives.

    `digest` is that of the manifest: the identity of a version, for requests and inside. `file_digest` is the SHA-256
    of the bundle's file, hexadecimal, None of a bundle that was never one: what operators know it by.
    """

    bundle: Bundle
    manifest: bytes
    digest: str
    parameters: Parameters
    keys: KeySet
    file_digest: str | None
    inputs_length: int
    outputs_length: int

    @classmethod
    def of(cls, bundle: Bundle, file_digest: str | None = None) -> ServedModel:
        manifest, parameters = bundle.manifest, bundle.manifest.to_parameters()
        return cls(
            bundle=bundle,
            manifest=manifest.to_bytes(),
            digest=digest_of(manifest),
            parameters=parameters,
            keys=KeySet.of(manifest),
            file_digest=file_digest,
            inputs_length=ciphertexts_length(
                parameters, count=manifest.input.layout.ciphertexts, level=manifest.input.level, seeded=True
            ),
            outputs_length=ciphertexts_length(
                parameters, count=manifest.output.layout.ciphertexts, level=manifest.output.level, seeded=False
            ),
        )

    def without_weights(self) -> ServedModel:
        """The same for who has loaded the circuit: of a large model, hundreds of megabytes less."""
        return replace(self, bundle=replace(self.bundle, circuit=replace(self.bundle.circuit, constants=())))

    @property
    def name(self) -> str:
        return self.bundle.manifest.name

    @property
    def version(self) -> str:
        return self.bundle.manifest.model_version

    @property
    def title(self) -> str:
        """Name and version, for people."""
        return f"{self.name} {self.version}"

    def memory(self, backend: str, options: NativeOptions) -> Memory:
        """What it takes in a worker."""
        return runtime_memory(self.bundle.typed, backend=backend, options=options)

    def loaded_key_bytes(self, backend: str) -> int:
        """What one client's keys take in a worker."""
        return key_bytes(self.parameters, self.keys.levels, backend)

    def read_inputs(self, body: bytes) -> Sequence[CiphertextFrame]:
        """The ciphertexts of a frame; raises what decode_ciphertexts does unless it is as the plan wants them."""
        spec = self.bundle.manifest.input
        return decode_ciphertexts(
            body,
            self.parameters,
            bytes.fromhex(self.digest),
            count=spec.layout.ciphertexts,
            level=spec.level,
            scale=spec.scale,
            seeded=True,
        )


class Models:
    """Models by name, and their versions by the digest of the manifest.

    The first that is given of a name is the current one; the others answer for clients that still hold their manifest.

    Raises:
        SettingError: when two have the very same manifest.
    """

    def __init__(self, versions: Sequence[ServedModel]) -> None:
        self._versions: dict[str, dict[str, ServedModel]] = {}
        for model in versions:
            of_name = self._versions.setdefault(model.name, {})
            if model.digest in of_name:
                raise SettingError(
                    f"two bundles have the same manifest, of {model.title}: serve one of them, or give the newer one a "
                    "model_version of its own"
                )
            of_name[model.digest] = model

    def only(self, names: Set[str]) -> Models:
        """Those of these names, as if there were no others."""
        return Models([model for model in self if model.name in names])

    def __iter__(self) -> Iterator[ServedModel]:
        """Every version, name by name, the current one first."""
        for of_name in self._versions.values():
            yield from of_name.values()

    @property
    def by_name(self) -> Mapping[str, Sequence[ServedModel]]:
        """The versions of every name, the current one first."""
        return {name: tuple(of_name.values()) for name, of_name in self._versions.items()}

    def current(self, name: str) -> ServedModel:
        """The version whose manifest a client gets; UnknownModelError when there is no model of that name."""
        return next(iter(self._named(name).values()))

    def version(self, name: str, digest: str | None) -> ServedModel:
        """The version that a request names.

        Raises:
            UnknownModelError: when there is no model of that name.
            ManifestRequiredError: when it names no version.
            UnknownManifestError: when the service has other versions only.
        """
        of_name = self._named(name)
        if digest is None:
            raise ManifestRequiredError(
                "the request does not say which version of the model it is made for: fetch its manifest, from GET "
                "/models/{model}/manifest, and name the SHA-256 of its bytes as manifest=, or upgrade the client"
            )
        if digest not in of_name:
            raise UnknownManifestError(
                "the service does not have this version of the model (any more): fetch its manifest again, from GET "
                "/models/{model}/manifest, and make the request anew from that"
            )
        return of_name[digest]

    def taking(self, key_set: str) -> list[str]:
        """Names of the models of which a version takes keys of a set."""
        return [name for name, of in self.by_name.items() if any(model.keys.digest == key_set for model in of)]

    def _named(self, name: str) -> dict[str, ServedModel]:
        try:
            return self._versions[name]
        except KeyError:
            raise UnknownModelError("there is no such model here: GET /models lists them") from None


def load_models(paths: Sequence[Path], trust: Sequence[Path] | None = None) -> Models:
    """Open bundles, of each model the current version first.

    Args:
        trust: public keys, one of which must have signed every bundle; None takes any. The bytes that are verified are
            those that are opened.

    Raises:
        BundleError: when a file is no bundle.
        UntrustedBundleError: when none of the keys has signed it.
        SettingError: when a file is missing, or two have the very same manifest.
    """
    versions: list[ServedModel] = []
    for path in paths:
        if not path.is_file():
            raise SettingError(f"there is no bundle {path}: name files that heinfer compile wrote")
        data = bundles.read(path)
        if trust is not None:
            signer_of(path, data, trust)
        versions.append(ServedModel.of(bundles.opened(path, data), digest_of_file(data)))
    return Models(versions)
