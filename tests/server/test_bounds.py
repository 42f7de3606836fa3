"""The bounds that SECURITY.md names are those that the code has."""

from pathlib import Path

from heinfer.formats import bundle as bundles
from heinfer.formats.manifest import MAX_MANIFEST_BYTES
from heinfer_client import transfer, trust
from heinfer_server import Settings, service
from heinfer_server.evaluation import jobs
from heinfer_server.evaluation.loaded import MOST_LOADED_KEYS
from heinfer_server.keys import uploads
from heinfer_server.telemetry import logs
from heinfer_server.telemetry.metrics import LEAST_SECONDS
from heinfer_server.web import connections, descriptors, metrics_port


def test_the_bounds_are_those_that_are_documented():
    text = (Path(__file__).parents[2] / "SECURITY.md").read_text()
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    for row in (
        f"less {descriptors.SERVICE_FILES + descriptors.METRICS_FILES + 2 * descriptors.MOST_BACKLOG} files",
        f"and {descriptors.FILES_PER_WORKER} for each worker",
        f"API key may cause {logs.OUTSIDE_LINES} at once",
        f"connections to the metrics port | {metrics_port.MOST_CONNECTIONS},",
        f"at most {1 / LEAST_SECONDS:g} times a second",
        f"query and headers | {connections.MAX_HEAD_BYTES >> 10} KiB, and {connections.HEAD_SECONDS:g} s",
        f"`BODY_SECONDS_PER_MIB`, {defaults['body_seconds_per_mib']:g} s",
        f"{connections.ANSWER_SECONDS_PER_MIB:g} s for each started MiB",
        f"{service.REGISTRATIONS_AT_ONCE} at once, pieces",
        f"`KEY_MEMORY`, {defaults['key_memory'] >> 30} GiB",
        f"`KEY_DISK`, {defaults['key_disk'] >> 30} GiB",
        f"`KEY_SECONDS`, {defaults['key_seconds'] / 86400:g} days",
        f"{uploads.UPLOADS_AT_ONCE} at once, {uploads.UPLOADS_OF_A_TENANT} of a tenant",
        f"at most {uploads.CHUNK_BYTES >> 20} MiB",
        f"`UPLOAD_SECONDS`, {defaults['upload_seconds']:g} s",
        f"`LOADED_KEY_MEMORY`, {defaults['loaded_key_memory'] >> 30} GiB, of keys expanded for use, {MOST_LOADED_KEYS}",
        f"{service.EVALUATIONS_PER_WORKER} for each worker",
        f"{service.EVALUATIONS_PER_WORKER_AND_TENANT} of them of one tenant",
        f"`TENANT_REQUESTS`, {defaults['tenant_requests']}, and `TENANT_BYTES`, {defaults['tenant_bytes'] >> 30} GiB",
        f"then {jobs.JOBS_OF_A_TENANT} of a tenant, {jobs.JOBS_KEPT} in all",
        f"`JOB_SECONDS`, {defaults['job_seconds']:g} s",
        f"`EVALUATION_TIMEOUT`, {defaults['evaluation_timeout']:g} s",
        f"`MODEL_MEMORY`, {defaults['model_memory'] >> 30} GiB",
        f"at most {bundles.MAX_FILE_BYTES >> 20} MiB, inflated {bundles.MAX_INFLATED_BYTES >> 20} MiB",
        f"{MAX_MANIFEST_BYTES >> 20} MiB of manifest, {trust.MAX_KEY_BYTES >> 30} GiB of evaluation keys to send "
        f"({trust.MAX_MADE_BYTES >> 30} GiB before",
        f"{trust.MAX_INPUT_BYTES >> 30} GiB of input",
        f"`timeout`, {transfer.DEADLINE:g} s",
    ):
        assert row in text
