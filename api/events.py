"""What happened to a job, as a list and as server-sent events."""

import asyncio
import time
from collections.abc import AsyncIterator

from fastapi import Request
from fastapi.concurrency import run_in_threadpool

from api import views
from api.auth import Caller
from api.schemas import EventBody, Events
from api.services import Services
from db import events, jobs

EVENT_STREAM = "text/event-stream"
BATCH = 200
PAUSE_S = 0.25
HEARTBEAT_S = 15.0
RECONNECT_MS = 2000
LARGEST_ID = 2**63 - 1


def page(services: Services, caller: Caller, job_id: str, after: int, limit: int) -> Events:
    """The events after one id, the oldest first. Raises `NotFound`."""
    with services.database.read() as s:
        job = jobs.get_job(s, caller.project_id, job_id)
        found = events.list_events(s, job_id, after, limit + 1)
    items = tuple(views.event(row) for row in found[:limit])
    return Events(
        items=items,
        next_after=items[-1].id if items else after,
        final=job.state.is_final and len(found) <= limit,
    )


async def stream(
    request: Request, services: Services, caller: Caller, job_id: str, first: Events
) -> AsyncIterator[bytes]:
    """Events as they come, until the last. Between two looks neither thread nor session is held."""
    yield f"retry: {RECONNECT_MS}\n\n".encode()
    found, said = first, time.monotonic()
    while True:
        for event in found.items:
            yield encode(event)
            said = time.monotonic()
        if found.final:
            return
        if not found.items:
            if time.monotonic() - said >= HEARTBEAT_S:
                yield b": still here\n\n"
                said = time.monotonic()
            await asyncio.sleep(PAUSE_S)
        if await request.is_disconnected():
            return
        found = await run_in_threadpool(page, services, caller, job_id, found.next_after, BATCH)


def encode(event: EventBody) -> bytes:
    return f"id: {event.id}\nevent: {event.type}\ndata: {event.model_dump_json()}\n\n".encode()


def wants_stream(request: Request) -> bool:
    return EVENT_STREAM in request.headers.get("accept", "")


def last_id(header: str | None, after: int) -> int:
    """`Last-Event-ID` wins, for a browser that reconnects repeats the address it began with."""
    given = (header or "").strip()
    return min(int(given), LARGEST_ID) if given.isascii() and given.isdigit() and len(given) < 20 else after
