"""Which status a domain error answers with, in one table, and the RFC 9457 body that every error has.

The core raises its own errors with a stable `code` and never knows HTTP; what only HTTP can get wrong is here.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from compression import errors as compression
from compression.method import Problem as Finding
from db import errors as state


class HttpError(Exception):
    """Something about the request itself. `findings` become `errors[]`, `headers` go out with the answer."""

    status: ClassVar[int] = 400
    code: ClassVar[str] = "bad_request"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        findings: Sequence[Finding] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.stable_code = code or self.code
        self.findings = tuple(findings)
        self.headers = dict(headers or {})


class MalformedBody(HttpError):
    code = "malformed_body"


class Unauthenticated(HttpError):
    status, code = 401, "unauthenticated"

    def __init__(self, message: str, *, challenge: str = "") -> None:
        extra = f", {challenge}" if challenge else ""
        super().__init__(message, headers={"WWW-Authenticate": f'Bearer realm="modelpress"{extra}'})


class ScopeMissing(HttpError):
    status, code = 403, "scope_missing"


class OriginRefused(HttpError):
    status, code = 403, "origin_refused"


class NoSuchRoute(HttpError):
    status, code = 404, "not_found"


class IdempotencyInProgress(HttpError):
    status, code = 409, "idempotency_in_progress"


class PayloadTooLarge(HttpError):
    status, code = 413, "payload_too_large"


class UnsupportedMediaType(HttpError):
    status, code = 415, "unsupported_media_type"


class RangeNotSatisfiable(HttpError):
    status, code = 416, "range_not_satisfiable"


class Invalid(HttpError):
    status, code = 422, "validation_failed"


class IdempotencyMismatch(HttpError):
    status, code = 422, "idempotency_mismatch"


class UploadRefused(HttpError):
    """The inspection found no model or dataset in the file; the code is the inspection's."""

    status, code = 422, "upload_refused"


class PreflightRefused(HttpError):
    status, code = 422, "preflight_refused"


STATUS: Mapping[type[Exception], int] = {
    state.NotFound: 404,
    state.Conflict: 409,
    state.QuotaExceeded: 403,
    state.ObjectMissing: 503,
    state.StorageError: 503,
    state.StateError: 500,
    compression.CompressionError: 422,
    OperationalError: 503,
    PoolTimeout: 503,
}
"""The nearest class in an error's ancestry decides; `HttpError`s bring their own."""

TITLES = {
    400: "The request is malformed",
    401: "A key is needed",
    403: "Not allowed",
    404: "Not found",
    405: "The method is not allowed here",
    409: "The state rules this out",
    413: "Too large",
    415: "This media type is not taken",
    416: "The range lies outside the content",
    422: "The request cannot be carried out as it is",
    500: "Something went wrong in the service",
    503: "A part of the service is not available",
}
RETRY_AFTER_S = "5"


def status_of(error: Exception) -> int:
    if isinstance(error, HttpError):
        return error.status
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def body_of(error: Exception, *, instance: str, request_id: str) -> dict[str, Any]:
    """The problem document of an error that `STATUS` knows."""
    code, detail, findings = _facts(error)
    return problem(
        status_of(error), code, detail, instance=instance, request_id=request_id, findings=findings
    )


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    instance: str,
    request_id: str,
    findings: Sequence[Finding] = (),
) -> dict[str, Any]:
    return {
        "type": f"urn:modelpress:problem:{code}",
        "title": TITLES.get(status, "The request failed"),
        "status": status,
        "detail": printable(detail),
        "instance": printable(instance),
        "code": code,
        "request_id": request_id,
        "errors": [_clean(finding.model_dump()) for finding in findings],
    }


def printable(text: str) -> str:
    """Text that UTF-8 can carry: what a caller sent may hold lone surrogates."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _facts(error: Exception) -> tuple[str, str, tuple[Finding, ...]]:
    if isinstance(error, HttpError):
        return error.stable_code, error.message, error.findings
    if isinstance(error, compression.CompressionError):
        return error.code, error.message, (Finding.of(error),)
    if isinstance(error, state.QuotaExceeded):
        return error.code, error.message, (_quota(error),)
    if isinstance(error, state.StateError):
        hint = Finding(code=error.code, message=error.message, hint=error.hint)
        return error.code, error.message, (hint,) if error.hint else ()
    return "database_unavailable", "The database did not answer; try again in a few seconds", ()


def _quota(error: state.QuotaExceeded) -> Finding:
    numbers = f"limit {error.limit}, in use {error.used}, wanted {error.wanted}"
    return Finding(
        code=error.code, message=numbers, where=error.quota, hint="Delete what is not needed any more."
    )


def _clean(finding: dict[str, Any]) -> dict[str, Any]:
    return {name: printable(value) if isinstance(value, str) else value for name, value in finding.items()}
