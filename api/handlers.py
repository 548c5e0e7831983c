"""Exception handlers: every error leaves as problem+json, whoever raised it."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Match

from api.errors import (
    RETRY_AFTER_S,
    STATUS,
    HttpError,
    Invalid,
    MalformedBody,
    NoSuchRoute,
    body_of,
    problem,
    status_of,
)
from api.requests import JobRequest
from compression.method import Problem as Finding
from compression.registry import METHODS

PROBLEM_JSON = "application/problem+json"
_JSON_WORDS = {
    "dictionary or object to extract fields from": "object",
    "valid dictionary": "valid object",
    "valid tuple": "valid array",
    "Dictionary should": "The object should",
    "Tuple should": "The array should",
    "List should": "The array should",
    " after validation, not": ", not",
}
_CODES = {400: "malformed_body", 404: "not_found", 405: "method_not_allowed"}


def install(app: FastAPI) -> None:
    kinds: tuple[type[Exception], ...] = (HttpError, *STATUS)
    for kind in kinds:
        app.add_exception_handler(kind, _answer)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(HTTPException, _answer_http)


def _answer(request: Request, error: Exception) -> JSONResponse:
    headers = dict(error.headers) if isinstance(error, HttpError) else {}
    status = status_of(error)
    if status == 503:
        headers["Retry-After"] = RETRY_AFTER_S
    body = body_of(error, instance=request.url.path, request_id=request.state.request_id)
    return JSONResponse(body, status, headers, PROBLEM_JSON)


def _answer_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return _answer(request, _as_http_error(request, error.errors()))


def _answer_http(request: Request, error: Exception) -> JSONResponse:
    """What Starlette and FastAPI raise by themselves: unknown paths, wrong methods, unreadable bodies."""
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code, "http_error")
    headers = dict(error.headers or {})
    detail = str(error.detail)
    if error.status_code == 404:
        detail = f"There is nothing at {request.url.path}"
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_allowed(request))
        detail = f"{request.method} is not possible here; {headers['Allow']} is"
    request_id = request.state.request_id
    body = problem(error.status_code, code, detail, instance=request.url.path, request_id=request_id)
    return JSONResponse(body, error.status_code, headers, PROBLEM_JSON)


def _allowed(request: Request) -> list[str]:
    """The methods of all routes at this path; Starlette itself would name those of the first."""
    found: set[str] = set()
    for route in _flat(request.app.routes):
        if route.matches(request.scope)[0] is not Match.NONE:
            found |= getattr(route, "methods", None) or set()
    return sorted(found)


def _flat(routes: Iterable[Any]) -> Iterable[Any]:
    for route in routes:
        router = getattr(route, "original_router", None)
        yield from _flat(router.routes) if router else (route,)


def _as_http_error(request: Request, errors: Sequence[Any]) -> HttpError:
    if any(error["loc"][:1] == ("path",) for error in errors):
        return NoSuchRoute(f"There is nothing at {request.url.path}: that is no id of ours")
    if any(error["type"] == "json_invalid" for error in errors):
        return MalformedBody(
            f"The body is not JSON: {errors[0].get('ctx', {}).get('error', 'it cannot be read')}"
        )
    findings = tuple(_finding(error) for error in errors if not _is_echo(error, errors))
    return Invalid("; ".join(_sentence(finding) for finding in findings[:3]), findings=findings)


def _is_echo(error: Any, errors: Sequence[Any]) -> bool:
    """A list whose only item is wrong is told to be too short as well."""
    place = tuple(error["loc"])
    return error["type"] == "too_short" and any(
        len(other["loc"]) > len(place) and tuple(other["loc"][: len(place)]) == place for other in errors
    )


def _finding(error: Any) -> Finding:
    place = list(error["loc"])
    if place[:1] in (["body"], ["query"], ["header"]):
        place = place[1:]
    steps = place[:1] == ["steps"] and len(place) > 2 and place[2] in METHODS
    where = ".".join(str(part) for index, part in enumerate(place) if not (steps and index == 2))
    hint = _hint(error, METHODS[place[2]] if steps else JobRequest)
    return Finding(code=error["type"], message=_message(error), where=where or None, hint=hint)


def _message(error: Any) -> str:
    """Pydantic's words as those of JSON; of a misspelt method only its name, for the hint has the right ones."""
    if error["type"] == "union_tag_invalid":
        return f"there is no method {error['ctx']['tag']!r}"
    message = str(error["msg"]).removeprefix("Value error, ")
    for python, json in _JSON_WORDS.items():
        message = message.replace(python, json)
    return message


def _hint(error: Any, document: type[BaseModel]) -> str | None:
    """What was meant, where that can be guessed; `document` has the fields of the place in question."""
    if error["type"] == "union_tag_invalid":
        return _near(error["ctx"]["tag"], METHODS) or "GET /v1/methods lists the methods"
    if error["type"] == "extra_forbidden" and error["loc"][0] == "body" and len(error["loc"]) in (2, 5):
        fields = [name for name in document.model_fields if name != "method"]
        return _near(error["loc"][-1], fields) or f"fields here: {', '.join(fields)}"
    return None


def _near(word: object, known: Iterable[str]) -> str | None:
    near = difflib.get_close_matches(str(word), list(known), n=3, cutoff=0.6)
    return f"did you mean {', '.join(near)}?" if near else None


def _sentence(finding: Finding) -> str:
    return f"{finding.where}: {finding.message}" if finding.where else finding.message
