"""Waiting for a row to change without holding a thread, a session or a connection."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from fastapi import Request
from fastapi.concurrency import run_in_threadpool

_T = TypeVar("_T")
_FIRST_S = 0.05
_LONGEST_S = 0.5


async def wait_until(
    request: Request, read: Callable[[], _T], done: Callable[[_T], bool], seconds: float
) -> _T:
    """Reads until `done`, at growing intervals, for at most so many seconds; returns what was read last.

    Each read takes a thread and a session for itself alone. Ends early when the client has left.
    """
    deadline = time.monotonic() + seconds
    pause = _FIRST_S
    found = await run_in_threadpool(read)
    while not done(found) and (left := deadline - time.monotonic()) > 0:
        await asyncio.sleep(min(pause, left))
        pause = min(1.5 * pause, _LONGEST_S)
        if await request.is_disconnected():
            break
        found = await run_in_threadpool(read)
    return found
