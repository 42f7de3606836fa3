"""Manifests of format 2, as bundles of format 1 hold them, read as those of format 3."""

from __future__ import annotations

import json
from typing import Any

from heinfer.errors import ManifestError
from heinfer.formats.manifest import MAX_MANIFEST_BYTES, Manifest, parse_manifest


def upgraded(data: bytes) -> Manifest:
    """Read a manifest of format 2 from an untrusted source; raises what parse_manifest does.

    What format 2 does not say: an output with labels is a classification, and its range is all that the parameters can
    represent.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise ManifestError(f"a manifest has at most {MAX_MANIFEST_BYTES} bytes, not {len(data)}")
    try:
        told = json.loads(data)
        if told["version"] != 2:
            raise ManifestError("the manifest must be of format 2")
        manifest = parse_manifest(json.dumps(_changed(told)).encode())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ManifestError("the manifest is no manifest of format 2") from None
    output = manifest.output.model_copy(update={"range": manifest.capacity_of(manifest.output)})
    return manifest.model_copy(update={"outputs": (output,)})


def _changed(told: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in told.items() if name not in ("input", "output", "keys")}
    output, parameters = told["output"], dict(told["parameters"])
    parameters["special_primes"] = [parameters.pop("special_prime")]
    parameters["digits"] = [1] * len(parameters["data_primes"])
    kind = "classification" if output["labels"] else "values"
    return kept | {
        "version": 3,
        "parameters": parameters,
        "inputs": [{"name": "image", **told["input"]}],
        "outputs": [{"name": "scores", "kind": kind, "exponent": 0, "range": 5e-324, **output}],
        "key_sets": [{"name": "all", **told["keys"]}],
    }
