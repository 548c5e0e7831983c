"""Files on their way in: streamed, counted and hashed while they are written; then a row, then the bell.

At no time is more of a file in memory than one batch of `BATCH_BYTES`.
"""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Protocol

from fastapi import Query, Request
from fastapi.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from api.auth import Caller
from api.errors import Invalid, MalformedBody, PayloadTooLarge, UnsupportedMediaType
from api.multipart import FormStream
from api.routing import media_type
from api.services import Services
from db.assets import add_asset
from db.blobs import object_key
from db.errors import ObjectMissing, QuotaExceeded
from db.incoming import IncomingObject
from db.models import Asset, AssetKind
from db.projects import get_project, stored_bytes
from db.session import after_commit

BATCH_BYTES = 1 << 20
MAX_NAME = 200
MAX_FILENAME = 255
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufffd\ud800-\udfff]")

Name = Annotated[
    str | None, Query(max_length=MAX_NAME, description="what to call it; the file's name if left out")
]
Filename = Annotated[
    str | None, Query(max_length=MAX_FILENAME, description="the file's name, for raw uploads")
]


@dataclass(frozen=True, kw_only=True)
class Received:
    """A complete file, not yet stored: it waits beside the store."""

    incoming: IncomingObject
    name: str
    filename: str


class _Sink(Protocol):
    def feed(self, chunk: bytes) -> None: ...


async def receive(
    request: Request,
    services: Services,
    caller: Caller,
    kind: AssetKind,
    name: str | None,
    filename: str | None,
) -> tuple[Asset, bool]:
    """Takes the file of this request and records it; returns (asset, is it new).

    Whatever ends it early, a client that leaves too, nothing of the file stays behind.
    """
    limit = await run_in_threadpool(_limit, services, caller)
    _check_announced(request, limit)
    incoming = await run_in_threadpool(services.store.begin)
    try:
        file = await _read(request, _Counted(incoming, limit), incoming, name, filename)
        services.metrics.received(incoming.size_bytes)
        return await run_in_threadpool(_record, services, caller, kind, file)
    except ClientDisconnect as error:
        raise MalformedBody("The upload ended before its announced end") from error
    finally:
        await run_in_threadpool(incoming.abort)


@dataclass(frozen=True, kw_only=True)
class _Limit:
    """The most bytes that can be taken, and the error that says why no more."""

    size_bytes: int
    error: Exception

    def check(self, size_bytes: int) -> None:
        if size_bytes > self.size_bytes:
            raise self.error


@dataclass(frozen=True)
class _Counted:
    """The file's end of the stream: refuses what is too large as soon as that is known."""

    incoming: IncomingObject
    limit: _Limit

    def feed(self, chunk: bytes) -> None:
        self.limit.check(self.incoming.size_bytes + len(chunk))
        self.incoming.write(chunk)


def _limit(services: Services, caller: Caller) -> _Limit:
    """A file larger than the whole quota is cut off early; whether it fits in what is left shows in the end,
    because bytes that the project has already take no more room.
    """
    largest = services.settings.max_upload_bytes
    with services.database.read() as s:
        project = get_project(s, caller.project_id)
        used = stored_bytes(s, project.id)
    if project.max_stored_bytes < largest:
        quota = QuotaExceeded(
            "max_stored_bytes", limit=project.max_stored_bytes, used=used, wanted=project.max_stored_bytes + 1
        )
        return _Limit(size_bytes=project.max_stored_bytes, error=quota)
    return _Limit(size_bytes=largest, error=PayloadTooLarge(f"An upload may have at most {largest} bytes"))


def _check_announced(request: Request, limit: _Limit) -> None:
    """A form is a little longer than its file, so it is granted that much."""
    announced = request.headers.get("content-length", "")
    slack = (64 << 10) if media_type(request) == "multipart/form-data" else 0
    if announced.isascii() and announced.isdigit():
        limit.check(int(announced) - slack)


async def _read(
    request: Request, sink: _Counted, incoming: IncomingObject, name: str | None, filename: str | None
) -> Received:
    kind = media_type(request)
    if kind == "multipart/form-data":
        form = FormStream(request.headers["content-type"], sink.feed)
        await _pour(request, form)
        await run_in_threadpool(form.close)
        name, filename = form.fields.get("name") or name, form.filename or filename
    elif kind == "application/octet-stream":
        await _pour(request, sink)
    else:
        raise UnsupportedMediaType(
            f"an upload is multipart/form-data or application/octet-stream, not {kind or 'of an unnamed type'}"
        )
    if incoming.size_bytes == 0:
        raise Invalid("the file is empty", code="file_empty")
    if name is not None and len(name) > MAX_NAME:
        raise Invalid(f"the name has more than {MAX_NAME} characters", code="name_too_long")
    clean = printable_name(filename or "", MAX_FILENAME) or "upload"
    return Received(
        incoming=incoming, name=printable_name(name or "", MAX_NAME) or clean[:MAX_NAME], filename=clean
    )


async def _pour(request: Request, sink: _Sink) -> None:
    """Parsing, hashing and writing happen in a thread, once per batch."""
    async for batch in _batches(request.stream()):
        await run_in_threadpool(sink.feed, batch)


async def _batches(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    batch = bytearray()
    async for chunk in stream:
        batch += chunk
        if len(batch) >= BATCH_BYTES:
            yield bytes(batch)
            batch.clear()
    if batch:
        yield bytes(batch)


def printable_name(text: str, length: int) -> str:
    """A stranger's name without folders, control characters and tricks of direction."""
    return _CONTROL.sub("", text.replace("\\", "/").rpartition("/")[2]).strip()[:length]


def _record(services: Services, caller: Caller, kind: AssetKind, file: Received) -> tuple[Asset, bool]:
    """The bytes are stored only if the project does not have them yet."""
    try:
        return _add(services, caller, kind, file)
    except ObjectMissing:
        file.incoming.commit(object_key(caller.project_id, file.incoming.sha256))
        return _add(services, caller, kind, file)


def _add(services: Services, caller: Caller, kind: AssetKind, file: Received) -> tuple[Asset, bool]:
    with services.database.transaction() as s:
        asset, created = add_asset(
            s,
            services.store,
            project_id=caller.project_id,
            kind=kind,
            name=file.name,
            filename=file.filename,
            sha256=file.incoming.sha256,
            size_bytes=file.incoming.size_bytes,
        )
        if created:
            after_commit(s, lambda: services.bell.ring_inspection(asset.id))
        return asset, created
