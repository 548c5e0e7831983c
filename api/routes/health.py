"""/healthz, /readyz and /metrics: for whoever runs the service. They ask for no key and name no project."""

import asyncio
from collections.abc import Callable
from importlib.metadata import version

import anyio
import anyio.to_thread
from fastapi import Response
from fastapi.concurrency import run_in_threadpool
from prometheus_client import CONTENT_TYPE_LATEST

from api.documented import open_problems
from api.errors import HttpError
from api.routing import router
from api.schemas import Health, Part, Readiness
from api.services import Services, ServicesHere
from compression.method import Problem as Finding
from db.statistics import live_workers_by_queue

routes = router("service")
CHECK_S = 3.0
VERSION = version("modelpress")


class NotReady(HttpError):
    status, code = 503, "not_ready"


@routes.get("/healthz")
async def healthz() -> Health:
    """The process answers."""
    return Health(version=VERSION)


@routes.get("/readyz", responses=open_problems())
async def readyz(services: ServicesHere) -> Readiness:
    """The database, the object store and the broker answer. 503 says which does not."""
    checks = {"database": _database, "storage": _storage, "broker": _broker}
    found = await asyncio.gather(*(_checked(check, services) for check in checks.values()))
    parts = dict(zip(checks, found, strict=True))
    silent = [
        Finding(code="not_ready", message=part.detail, where=name)
        for name, part in parts.items()
        if not part.ok
    ]
    if silent:
        names = ", ".join(finding.where or "" for finding in silent)
        raise NotReady(f"Not answering: {names}", findings=silent)
    workers = await run_in_threadpool(_workers, services)
    return Readiness(status="ready", parts=parts, workers=workers)


@routes.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def metrics(services: ServicesHere) -> Response:
    """Requests, latencies and queue depths in Prometheus' text format."""
    return Response(services.metrics.render(), media_type=CONTENT_TYPE_LATEST)


async def _checked(check: Callable[[Services], str], services: Services) -> Part:
    """A part that hangs is as bad as one that fails; its thread ends when its own time-out does."""
    try:
        with anyio.fail_after(CHECK_S):
            detail = await anyio.to_thread.run_sync(check, services, abandon_on_cancel=True)
    except TimeoutError:
        return Part(ok=False, detail=f"no answer within {CHECK_S:.0f} s")
    except Exception as error:  # noqa: BLE001 - whatever it is, this part is not ready
        return Part(ok=False, detail=type(error).__name__)
    return Part(ok=not detail, detail=detail or "answers")


def _database(services: Services) -> str:
    return "" if services.database.is_current() else "the tables are not current: run `python -m api migrate`"


def _storage(services: Services) -> str:
    services.store.check()
    return ""


def _broker(services: Services) -> str:
    return "" if services.bell.check() else "it does not answer; jobs wait in the database until it does"


def _workers(services: Services) -> dict[str, int]:
    with services.database.read() as s:
        return live_workers_by_queue(s)
