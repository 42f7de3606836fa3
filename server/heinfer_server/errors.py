"""Errors that only the service has; what all of them look like on the wire is in `web.problems`."""

from __future__ import annotations

from heinfer.errors import ServiceError


class SlowBodyError(ServiceError):
    """A request body did not arrive in time."""

    code = "request-timeout"


class AmbiguousLengthError(ServiceError):
    """The head of a request gives the length of its body twice: proxies differ in which one they believe."""

    code = "ambiguous-length"


class HeadTooLargeError(ServiceError):
    """The head of a request is longer than any that this service has use for."""

    code = "head-too-large"


class MisdirectedError(ServiceError):
    """A request names another host than this machine, and the service is for this machine alone."""

    code = "misdirected-request"


class ForeignOriginError(ServiceError):
    """A page of another host than this machine sends a request, and the service is for this machine alone."""

    code = "foreign-origin"


class StorageError(ServiceError):
    """The place where keys are kept fails or is full."""

    code = "storage-failed"


class NotReadyError(ServiceError):
    """No worker can evaluate."""

    code = "not-ready"
