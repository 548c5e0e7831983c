"""The route class of the API: it refuses what FastAPI would quietly ignore."""

from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from api.errors import Invalid, PayloadTooLarge, UnsupportedMediaType
from compression.method import Problem as Finding

MAX_JSON_BYTES = 1 << 20


class StrictRoute(APIRoute):
    """Refuses unknown query parameters, and bodies that are too large or no JSON where JSON is read.

    `?dryrun=true` must not queue the job that `?dry_run=true` would only have looked at.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        known = set(_query_names(self.dependant))
        reads_json = self.body_field is not None

        async def strict(request: Request) -> Response:
            _check_query(request, known)
            if reads_json:
                _check_media_type(request)
                await _read_body(request)
            return await handle(request)

        return strict


def router(tag: str) -> APIRouter:
    return APIRouter(tags=[tag], route_class=StrictRoute)


def media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _query_names(dependant: Dependant) -> Iterator[str]:
    yield from (field.alias for field in dependant.query_params)
    for inner in dependant.dependencies:
        yield from _query_names(inner)


def _check_query(request: Request, known: set[str]) -> None:
    unknown = sorted(set(request.query_params) - known)
    if unknown:
        hint = f"known here: {', '.join(sorted(known))}" if known else "none is known here"
        raise Invalid(
            f"unknown query parameter {unknown[0]!r}",
            code="unknown_parameter",
            findings=[
                Finding(code="unknown_parameter", message="unknown query parameter", where=name, hint=hint)
                for name in unknown
            ],
        )


def _check_media_type(request: Request) -> None:
    if media_type(request) != "application/json":
        raise UnsupportedMediaType(
            f"the body must be application/json, not {media_type(request) or 'of an unnamed type'}"
        )


async def _read_body(request: Request) -> None:
    """Reads the body for FastAPI, which would take any amount of it, and leaves it where Starlette looks for it."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_JSON_BYTES:
            raise PayloadTooLarge(f"a JSON body may have at most {MAX_JSON_BYTES} bytes")
    request._body = bytes(body)
