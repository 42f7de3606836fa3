"""The whole exception tree of heinfer, its server and its client.

Every error names the layer or the request it is about, the cause and the way out, and carries a
stable ``code`` that is also what crosses the wire (as the ``code`` member of a problem+json body).
Messages never echo bytes that came from the network.
"""

from __future__ import annotations

from typing import ClassVar


class HeinferError(Exception):
    """Base of every error this project raises on purpose."""

    code: ClassVar[str] = "heinfer-error"


# Compiling -------------------------------------------------------------------------------------


class CompileError(HeinferError):
    """A model cannot be turned into an encrypted program."""

    code = "compile-error"


class UnsupportedOperatorError(CompileError):
    """The model uses an operator that no lowering exists for; names operator and module path."""

    code = "unsupported-operator"


class ShapeError(CompileError):
    """Shapes of a network do not fit together."""

    code = "shape-mismatch"


class MapTooLargeError(CompileError):
    """A linear map of a network has neither a structure nor few enough entries; names the layer."""

    code = "map-too-large"


class PlanError(CompileError):
    """No plan satisfies the request (levels, slots, keys or memory)."""

    code = "no-plan"


class RangeError(CompileError):
    """A value times its scale could exceed half the modulus at its level."""

    code = "range-overflow"


class NoiseError(CompileError):
    """The noise of an encrypted run would drown the scores; names the layer that most of it comes from."""

    code = "noise-too-large"


class NoiseWarning(UserWarning):
    """The noise of an encrypted run will change some of the labels, or leaves few bits of the scores."""


class CircuitError(CompileError):
    """A circuit breaks an invariant that a validator checks."""

    code = "invalid-circuit"


# Parameters and keys ---------------------------------------------------------------------------


class ParameterError(HeinferError):
    """CKKS parameters are malformed."""

    code = "bad-parameters"


class InsecureParametersError(ParameterError):
    """CKKS parameters are below 128-bit security."""

    code = "insecure-parameters"


class LayoutError(HeinferError):
    """A layout is malformed, or a tensor does not fit it."""

    code = "bad-layout"


class BackendError(HeinferError):
    """A backend cannot run a circuit (missing key, library failure)."""

    code = "backend-error"


class CancelledError(BackendError):
    """A run was given up because somebody asked for it."""

    code = "cancelled"


class MissingKeyError(BackendError):
    """The evaluation keys lack one that the circuit needs."""

    code = "missing-evaluation-key"


# Bytes -----------------------------------------------------------------------------------------


class FormatError(HeinferError):
    """Bytes do not have the form they must have."""

    code = "bad-format"


class NewerFormatError(FormatError):
    """The bytes were written by a newer heinfer than this one."""

    code = "newer-format"


class BundleError(FormatError):
    """A file is no bundle, or a damaged one."""

    code = "bad-bundle"


class UntrustedBundleError(BundleError):
    """A bundle has no signature, or none by a key that is trusted."""

    code = "untrusted-bundle"


class ManifestError(FormatError):
    """A manifest is malformed or inconsistent."""

    code = "bad-manifest"


class FrameError(FormatError):
    """A frame from the network is malformed."""

    code = "bad-frame"


class FrameLengthError(FrameError):
    """A frame is truncated, oversized or has trailing bytes."""

    code = "frame-length"


class FrameBindingError(FrameError):
    """A frame was made for another manifest, key set or evaluation."""

    code = "frame-binding"


class ResidueRangeError(FrameError):
    """A residue in a frame is not below its prime."""

    code = "residue-range"


class CiphertextMismatchError(FrameError):
    """A ciphertext frame has another level, scale, kind or count than the plan asks for."""

    code = "ciphertext-mismatch"


class KeySetError(FrameError):
    """A key frame does not hold exactly the keys that the manifest lists."""

    code = "key-set-mismatch"


# Data and models -------------------------------------------------------------------------------


class DataError(HeinferError):
    """A data set is missing or damaged."""

    code = "data-missing"


class ImageError(HeinferError):
    """An image has the wrong shape, type or range for the model, or what it means is not certain.

    Attributes:
        cause: what is wrong with it.
        way_out: what to write in Python instead; empty where nothing is known.
        number: of the image among `several`, from 1; both 0 of one alone.
    """

    code = "bad-image"

    def __init__(self, cause: str, way_out: str = "", number: int = 0, several: int = 0) -> None:
        which = f"image {number} of {several}: " if number else ""
        super().__init__(f"{which}{cause}" + (f": {way_out}" if way_out else ""))
        self.cause = cause
        self.way_out = way_out
        self.number = number
        self.several = several


class SettingError(HeinferError):
    """A setting or command-line argument is wrong."""

    code = "bad-setting"


class UnsupportedSystemError(SettingError):
    """What is asked for does not run on this operating system."""

    code = "unsupported-system"


class KeyProtectionError(SettingError):
    """The file of a secret key is protected in another way than was said, or cannot be opened."""

    code = "key-protection"


class PassphraseRequiredError(KeyProtectionError):
    """The file of a secret key is protected by a passphrase, and none was given."""

    code = "passphrase-required"


class WrongPassphraseError(KeyProtectionError):
    """A passphrase does not open the file of a secret key."""

    code = "wrong-passphrase"


class KeyringError(KeyProtectionError):
    """The system's keyring is not there, does not open, or does not hold what a file needs."""

    code = "keyring-failed"


class MissingScoresError(SettingError, AttributeError):
    """A copy of a prediction is asked for scores, which only the original has."""

    code = "no-scores"


# Answers ---------------------------------------------------------------------------------------


class OutOfRangeError(HeinferError):
    """A decrypted answer is beyond what the model's parameters can represent: its label is worth nothing."""

    code = "out-of-range"


class OutOfRangeWarning(UserWarning):
    """The same, where no error was asked for; given every time, unless a filter of warnings says otherwise."""


# Service ---------------------------------------------------------------------------------------


class ServiceError(HeinferError):
    """A request to the inference service failed; ``code`` of the instance is the server's own.

    Args:
        message: what happened and what to do.
        status: HTTP status, 0 when no answer came.
        code: the server's stable code; the class's own when None.
    """

    code = "service-error"

    def __init__(self, message: str, *, status: int = 0, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.server_code = code or type(self).code


class ServiceUnavailableError(ServiceError):
    """The service cannot be reached, or has no capacity now.

    Attributes:
        retry_after: seconds after which it, or a proxy before it, wants to be asked again; None when nobody says.
    """

    code = "service-unavailable"

    def __init__(
        self, message: str, *, status: int = 0, code: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, status=status, code=code)
        self.retry_after = retry_after


class InsecureConnectionError(ServiceUnavailableError):
    """No TLS can be agreed on with the service: a certificate that is not trusted, or no TLS there at all."""

    code = "insecure-connection"


class BusyError(ServiceUnavailableError):
    """The service has as much to do as it takes on: the same request will be taken later."""

    code = "busy"


class RateLimitedError(BusyError):
    """A tenant has asked for as much as it may in a minute."""

    code = "rate-limited"


class UnauthorizedError(ServiceError):
    """A request has no API key, or one that is not good (any more)."""

    code = "unauthorized"


class ApiKeyExpiredError(UnauthorizedError):
    """A request has an API key whose time is over; only who has it hears so."""

    code = "api-key-expired"


class UnknownModelError(ServiceError):
    """The service has no model of that name."""

    code = "unknown-model"


class ManifestRequiredError(ServiceError):
    """A request that depends on a manifest does not name it."""

    code = "manifest-required"


class UnknownManifestError(ServiceError):
    """The service has the model, but not (any more) the version that the manifest is of."""

    code = "unknown-manifest"


class ModelChangedError(ServiceError):
    """The service has another version of the model than a call was made, or a client is pinned, for."""

    code = "model-changed"


class WrongAnswerError(ServiceError):
    """An answer is of another evaluation than was asked for: something between client and evaluation mixed them up."""

    code = "wrong-answer"


class UnknownKeysError(ServiceError):
    """The service holds no evaluation keys under that id (never registered, or evicted)."""

    code = "unknown-keys"


class UnknownJobError(ServiceError):
    """The service has no job under that id (never begun, cancelled, or over for long)."""

    code = "unknown-job"


class JobNotDoneError(ServiceError):
    """The result of a job is asked for before it is done."""

    code = "job-not-done"


class IdempotencyConflictError(ServiceError):
    """Two different requests came under one Idempotency-Key."""

    code = "idempotency-conflict"


class UnknownUploadError(ServiceError):
    """The service has no upload of keys under that id (never begun, finished, or over)."""

    code = "unknown-upload"


class UploadOffsetError(ServiceError):
    """A piece of an upload does not begin where the one before it ended: it came twice, too early or too late."""

    code = "upload-offset"


class UploadIncompleteError(ServiceError):
    """An upload is to be finished before all of it has come."""

    code = "upload-incomplete"


class UploadDigestError(ServiceError):
    """An upload is not what was announced."""

    code = "upload-digest"


class PayloadTooLargeError(ServiceError):
    """A request body is larger than the model can need."""

    code = "payload-too-large"


class WorkerFailedError(ServiceError):
    """The worker process that evaluated a request died, and so did the one that tried it again."""

    code = "worker-failed"


class EvaluationTimeoutError(WorkerFailedError):
    """An evaluation took longer than the service gives it, twice."""

    code = "evaluation-timeout"


class DeadlineError(ServiceError):
    """A request waited for its turn longer than its sender said it would wait for the answer."""

    code = "deadline-exceeded"


class UntrustedManifestError(HeinferError):
    """The client refuses a manifest (insecure parameters, absurd sizes, another model)."""

    code = "untrusted-manifest"
