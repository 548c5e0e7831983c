"""Stored bytes as answers: strong ETags, conditional requests, one range, and redirects to where the store serves."""

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse, StreamingResponse

from api.errors import RangeNotSatisfiable
from api.services import Services
from db.blobs import object_key

PRESIGNED_S = 900
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
SANDBOX = "sandbox allow-popups; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
"""For HTML that holds strangers' names: it gets no scripts, no origin and no network."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """An object of a project and how it is to be named when it is saved."""

    project_id: str
    sha256: str
    size_bytes: int
    filename: str
    media_type: str = "application/octet-stream"

    @property
    def etag(self) -> str:
        return f'"sha256-{self.sha256}"'

    @property
    def is_page(self) -> bool:
        return self.media_type.startswith("text/html")


async def answer(request: Request, services: Services, stored: Stored) -> Response:
    """200, 206, 304, 416, or 307 to a presigned URL where the store has one.

    1. `If-None-Match` with the ETag (or `*`) gives 304.
    2. A page is served from here, in a sandbox; anything else from the store itself where that is possible.
    3. `Range` counts only with an `If-Range` that is this ETag, or without any.
    """
    headers = _headers(stored)
    if has_it(request.headers.get("if-none-match"), stored.etag):
        return Response(status_code=304, headers=headers)
    key = object_key(stored.project_id, stored.sha256)
    url = None if stored.is_page else services.store.presign(key, stored.filename, PRESIGNED_S)
    if url is not None:
        return RedirectResponse(url, 307, {"ETag": stored.etag, "Cache-Control": "no-store"})
    span = _span(request, stored)
    start, stop = span or (0, stored.size_bytes)
    headers["Content-Length"] = str(stop - start)
    if span is not None:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{stored.size_bytes}"
    status = 200 if span is None else 206
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    chunks = await run_in_threadpool(services.store.open_range, key, start, stop)
    return StreamingResponse(streamed(chunks), status, headers)


def disposition(filename: str, kind: str = "attachment") -> str:
    """RFC 6266: a plain name for old clients, and the true one in UTF-8. No name can leave its quotes."""
    plain = re.sub(r"[^A-Za-z0-9 ._()+-]", "_", filename) or "download"
    safe = filename.encode("utf-8", "replace").decode("utf-8")
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(safe, safe='')}"


def _headers(stored: Stored) -> dict[str, str]:
    headers = {
        "ETag": stored.etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=31536000, immutable",
        "Content-Type": stored.media_type,
        "Content-Disposition": disposition(stored.filename, "inline" if stored.is_page else "attachment"),
    }
    return headers | {"Content-Security-Policy": SANDBOX} if stored.is_page else headers


def has_it(if_none_match: str | None, etag: str) -> bool:
    if if_none_match is None:
        return False
    given = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in given or etag in given


def _span(request: Request, stored: Stored) -> tuple[int, int] | None:
    """The asked bytes as (start, stop), or None for all: what is no single range is not a range at all."""
    found = _RANGE.fullmatch(request.headers.get("range", "").replace(" ", ""))
    if found is None or request.headers.get("if-range", stored.etag) != stored.etag:
        return None
    first, last = found.groups()
    if not first and not last:
        return None
    if not first:
        start, stop = max(stored.size_bytes - int(last), 0), stored.size_bytes
    else:
        start, stop = int(first), min(int(last) + 1 if last else stored.size_bytes, stored.size_bytes)
        if last and int(last) < int(first):
            return None
    if start >= stop:
        raise RangeNotSatisfiable(
            f"There are {stored.size_bytes} bytes", headers={"Content-Range": f"bytes */{stored.size_bytes}"}
        )
    return start, stop


async def streamed(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    try:
        while (chunk := await run_in_threadpool(next, chunks, None)) is not None:
            yield chunk
    finally:
        close: Any = getattr(chunks, "close", None)
        if close is not None:
            close()
