"""A packed model as an answer: unpacked on its way out, chunk by chunk, off the event loop."""

from collections.abc import Generator, Iterator
from pathlib import PurePosixPath

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from api.content import Stored, disposition, has_it, streamed
from api.errors import Invalid
from api.services import Services
from compression.errors import PackedError
from compression.method import Problem
from db.blobs import object_key

HINT = "as=onnx is for the artifact model.packed of a job whose last step is pack; leave it out for any other"
UNPACK = "download it and unpack it: python -m compression.coding unpack model.packed model.onnx"


async def unpacked_answer(request: Request, services: Services, stored: Stored) -> Response:
    """200 with the whole model, or 304; its ETag is one of its own. HEAD tells the size.

    Where bytes in the middle of a stored file are damaged, the answer ends before its `Content-Length`.

    Raises:
        Invalid: the artifact is no packed model of one file.
    """
    etag = f'"sha256-{stored.sha256}-onnx"'
    content = await run_in_threadpool(_open, services, stored)
    headers = {
        "ETag": etag,
        "Cache-Control": "private, max-age=31536000, immutable",
        "Content-Type": "application/octet-stream",
        "Content-Disposition": disposition(str(PurePosixPath(stored.filename).with_suffix(".onnx"))),
        "Content-Length": str(content.size),
    }
    if has_it(request.headers.get("if-none-match"), etag):
        content.close()
        headers.pop("Content-Length")
        return Response(status_code=304, headers=headers)
    if request.method == "HEAD":
        content.close()
        return Response(status_code=200, headers=headers)
    return StreamingResponse(streamed(content.bytes()), 200, headers)


class _Content:
    """A packed model that is being read from the store."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        from compression.coding.unpacking import Unpacker

        self._chunks = chunks
        self._rest = b""
        try:
            self._unpacker = Unpacker(self)
        except BaseException:
            self.close()
            raise

    def read(self, size: int, /) -> bytes:
        if not self._rest:
            self._rest = next(self._chunks, b"")
        part, self._rest = self._rest[:size], self._rest[size:]
        return part

    @property
    def files(self) -> int:
        return len(self._unpacker.files)

    @property
    def size(self) -> int:
        return self._unpacker.files[0].size

    def bytes(self) -> Generator[bytes, None, None]:
        try:
            for piece in self._unpacker.pieces():
                yield piece.data
        finally:
            self.close()

    def close(self) -> None:
        close = getattr(self._chunks, "close", None)
        if close is not None:
            close()


def _open(services: Services, stored: Stored) -> _Content:
    chunks = services.store.open_range(object_key(stored.project_id, stored.sha256), 0, stored.size_bytes)
    try:
        content = _Content(chunks)
    except PackedError as error:
        finding = Problem(code="not_packed", message=error.message, where="as", hint=HINT)
        raise Invalid(
            f"{stored.filename} is not a packed model: {error.message}", code="not_packed", findings=[finding]
        ) from error
    if content.files > 1:
        content.close()
        raise Invalid(
            f"{stored.filename} holds {content.files} files, which are no one ONNX file",
            code="not_packed",
            findings=[Problem(code="not_packed", message="external data", where="as", hint=UNPACK)],
        )
    return content
