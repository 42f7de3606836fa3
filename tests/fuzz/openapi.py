"""Requests made from the interface's own description, right and wrong ones, against a running service.

`make fuzz-http`, or python tests/fuzz/openapi.py SCHEMATHESIS SECONDS, where SCHEMATHESIS is its program.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from server_process import server_process
from tiny_model import tiny_bundle

from heinfer_server.admission.tenants import TenantFile

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "unsupported_method",
    "use_after_free",
    "ignored_auth",
)


def main(program: str, seconds: str) -> int:
    """Exit status of schemathesis; 1 as well when a worker was lost."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tenants = folder / "tenants.json"
        api_key = TenantFile(tenants).add("fuzzer")
        unlimited = {"tenants": tenants, "tenant_requests": 10**9, "tenant_bytes": 10**15}
        model = tiny_bundle("mnist-ffconv")  # the name that the description has as its example
        with server_process(folder / "server", [model], **unlimited, key_folder=folder / "keys") as server:
            worker = server.worker()
            done = subprocess.run(
                [
                    *(program, "run", f"{server.url}/openapi.json", "--header", f"Authorization: Bearer {api_key}"),
                    *("--checks", ",".join(CHECKS), "--max-time", seconds, "--continue-on-failure"),
                ],
                cwd=folder,
                check=False,
            )
            lost = server.worker() != worker
    print("a worker was lost" if lost else "no worker was lost")
    return done.returncode or int(lost)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
