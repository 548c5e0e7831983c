"""Around every request: its id, its log line, its metrics, the security headers, and the guard of an open service."""

import re
import time
import uuid
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

import structlog
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import HttpError, OriginRefused, body_of, problem
from api.metrics import Metrics

log = structlog.get_logger("api.requests")

_GIVEN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'",
}


class RequestContext:
    """The outermost layer: nothing leaves without an id, and a defect becomes a 500 with a traceback in the log."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send, _request_id(Headers(scope=scope)))
        scope.setdefault("state", {})["request_id"] = answer.request_id
        started = time.perf_counter()
        with structlog.contextvars.bound_contextvars(request_id=answer.request_id):
            try:
                await self._app(scope, receive, answer.send)
            except Exception:
                log.exception("request_failed", method=scope["method"], route=_route(scope))
                await answer.fail(scope, receive)
            finally:
                self._record(scope, answer.status, time.perf_counter() - started)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        """Paths and queries may hold what is private; the route's template does not."""
        method, route = _method(scope), _route(scope)
        self._metrics.answered(method, route, status, seconds)
        log.info("request", method=method, route=route, status=status, ms=round(1000 * seconds, 1))


class _Answer:
    """Watches an answer go out, and adds the headers that every one has."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self.request_id = request_id
        self.status = 499
        """Of a client that left before the answer began."""
        self._begun = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._begun = True
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self.request_id
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await self._send(message)

    async def fail(self, scope: Scope, receive: Receive) -> None:
        """After the first byte only the connection can tell: it ends before its announced length."""
        if self._begun:
            self.status = 500
            return
        detail = "The service has a defect; its log has the details under this request's id"
        body = problem(500, "internal_error", detail, instance=scope["path"], request_id=self.request_id)
        await _problem_response(body)(scope, receive, self.send)


class OpenServiceGuard:
    """Where no keys are asked for, web pages of other origins must not reach the service through a browser.

    1. The `Host` must be an address, `localhost`, or a name without dots: a page that rebinds its own domain's
       name to this machine carries that name.
    2. A request that changes something and comes from a page must come from a page of this very host.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = _refusal(scope["method"], Headers(scope=scope)) if scope["type"] == "http" else None
        if error is None:
            await self._app(scope, receive, send)
            return
        body = body_of(error, instance=scope["path"], request_id=scope["state"]["request_id"])
        await _problem_response(body)(scope, receive, send)


def _refusal(method: str, headers: Headers) -> HttpError | None:
    host = headers.get("host", "")
    if not _is_local_name(host):
        return OriginRefused(
            "This service asks for no keys, so it answers only under an address or localhost; "
            "set MODELPRESS_AUTH=true to use other names"
        )
    if method in _SAFE_METHODS:
        return None
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    foreign = origin is not None and origin.partition("://")[2] != host
    if foreign or site in {"cross-site", "same-site"}:
        return OriginRefused("A page of another origin may not change anything here")
    return None


def _is_local_name(host: str) -> bool:
    name = host.rpartition(":")[0] if re.search(r":\d*$", host) and not host.endswith("]") else host
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return bool(name) and ("." not in name or name.endswith(".localhost"))
    return True


def _problem_response(body: Mapping[str, Any]) -> JSONResponse:
    return JSONResponse(body, body["status"], media_type="application/problem+json")


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if _GIVEN_ID.fullmatch(given) else uuid.uuid4().hex


def _route(scope: Scope) -> str:
    return str(getattr(scope.get("route"), "path", "none"))


def _method(scope: Scope) -> str:
    """Any word is a method to HTTP; a metric must not have a series for each."""
    known = {"GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH"}
    return scope["method"] if scope["method"] in known else "other"
