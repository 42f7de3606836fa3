"""Pin the container images of Dockerfile and docker-compose.yml by digest: `python pin_images.py FILE...`.

Asks Docker Hub, by its HTTP interface, for the digest that each image's tag has now, and writes `name:tag@sha256:...`.
A digest that is there already is replaced. Exit code 2, and no file changed, when a registry does not answer.
"""

from __future__ import annotations

import json
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

IMAGE = re.compile(
    r"^(?P<before>FROM |\s+image: )(?P<name>[a-z0-9./_-]+):(?P<tag>[\w.-]+)(?:@sha256:[0-9a-f]{64})?", re.M
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HUB, _HUB_TOKENS = "https://registry-1.docker.io", "https://auth.docker.io/token?service=registry.docker.io"
_LISTS = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json"
_SECONDS = 30


def digest_of(name: str, tag: str, registry: str = _HUB) -> str:
    """The digest of an image for all its platforms; ValueError when the registry names none."""
    repository = name if "/" in name else f"library/{name}"
    request = urllib.request.Request(f"{registry}/v2/{repository}/manifests/{tag}", method="HEAD")
    request.add_header("Accept", _LISTS)
    if registry == _HUB:
        scope = f"{_HUB_TOKENS}&scope=repository:{repository}:pull"
        with urllib.request.urlopen(scope, timeout=_SECONDS) as answer:
            request.add_header("Authorization", f"Bearer {json.load(answer)['token']}")
    with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
        digest = answer.headers.get("Docker-Content-Digest", "")
    if not _DIGEST.fullmatch(digest):
        raise ValueError(f"the registry names no digest of {name}:{tag}")
    return digest


def pinned(text: str, registry: str = _HUB) -> str:
    """A file's text with every image pinned."""

    def pin(found: re.Match[str]) -> str:
        return f"{found['before']}{found['name']}:{found['tag']}@{digest_of(found['name'], found['tag'], registry)}"

    return IMAGE.sub(pin, text)


def main(files: Sequence[str]) -> int:
    """Pin all images of the files; returns the exit code."""
    try:
        texts = {Path(file): pinned(Path(file).read_text()) for file in files}
    except (OSError, ValueError, KeyError) as error:  # URLError is an OSError
        print(f"no image is pinned, the registry did not answer: {error}", file=sys.stderr)
        return 2
    for path, text in texts.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
