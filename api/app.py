"""create_app(): what hangs where. Nothing else happens here."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI

from api import handlers, openapi
from api.logs import configure_logs
from api.middleware import OpenServiceGuard, RequestContext
from api.routes import artifacts, comparisons, datasets, health, jobs, methods, models, pages
from api.services import Services
from db.settings import Settings

THREADS = 24
"""Fewer than the connections of either database's pool, so that no thread waits for one."""


def create_app(settings: Settings) -> FastAPI:
    """The HTTP face of one service. Opens no connection before the first request."""
    services = Services.open(settings)
    app = FastAPI(
        **openapi.FACTS,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=_lifespan,
        redirect_slashes=False,
        separate_input_output_schemas=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.services = services
    for resource in (models, datasets, methods, jobs, artifacts, comparisons, health, pages):
        app.include_router(resource.routes)
    pages.mount(app)
    handlers.install(app)
    openapi.install(app, auth=services.auth)
    if not services.auth:
        app.add_middleware(OpenServiceGuard)
    app.add_middleware(RequestContext, metrics=services.metrics)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    configure_logs()
    current_default_thread_limiter().total_tokens = THREADS
    yield
    app.state.services.close()
