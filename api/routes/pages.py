"""The pages for people: HTML without data, which the scripts then fetch as any caller would, with the caller's key."""

from functools import cache
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from api.parameters import JobId
from api.routing import router

STATIC = Path(__file__).parent.parent / "pages" / "static"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'{styles}; img-src 'self' data:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
POLICY = _POLICY.format(styles="")
DOCS_POLICY = _POLICY.format(styles=" 'unsafe-inline'")
"""Swagger UI styles its parts inline."""

routes = router("pages")


def mount(app: FastAPI) -> None:
    app.mount("/static", _Static(directory=STATIC), name="static")


@routes.get("/", include_in_schema=False)
async def home() -> HTMLResponse:
    return _page("home.html")


@routes.get("/jobs", include_in_schema=False)
async def jobs() -> HTMLResponse:
    return _page("jobs.html")


@routes.get("/jobs/{job_id}", include_in_schema=False)
async def job(job_id: JobId) -> HTMLResponse:
    return _page("job.html")


@routes.get("/compare", include_in_schema=False)
async def compare(job: str = "") -> HTMLResponse:
    return _page("compare.html")


@routes.get("/methods", include_in_schema=False)
async def methods() -> HTMLResponse:
    return _page("methods.html")


@routes.get("/docs", include_in_schema=False)
async def docs() -> HTMLResponse:
    return _page("docs.html", DOCS_POLICY)


@routes.get("/openapi.json", include_in_schema=False)
def openapi_document(request: Request) -> JSONResponse:
    return JSONResponse(request.app.openapi())


class _Static(StaticFiles):
    """Kept by browsers, but asked for again each time, so that an upgrade shows at once."""

    def file_response(self, *arguments: Any, **options: Any) -> Response:
        response = super().file_response(*arguments, **options)
        response.headers["Cache-Control"] = "no-cache"
        return response


def _page(template: str, policy: str = POLICY) -> HTMLResponse:
    return HTMLResponse(_render(template), headers={"Content-Security-Policy": policy})


@cache
def _render(template: str) -> str:
    environment = Environment(
        loader=PackageLoader("api", "pages"), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template(template).render()
