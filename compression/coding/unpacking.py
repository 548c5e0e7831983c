"""Reads a packed file, piece by piece, and knows nothing of what the files in it mean."""

import hashlib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from compression.coding.chunks import Chunk, Decoded, batches, chunks_of, decode_batch
from compression.coding.frames import unpacked
from compression.coding.wire import (
    CHUNK_UNITS,
    DIGEST_BYTES,
    GROUP_BYTES,
    GROUP_OPERATIONS,
    MAGIC,
    MAX_CONTROL_BYTES,
    MAX_FILES,
    MAX_HEADER_BYTES,
    MAX_NAME_BYTES,
    MAX_OUTPUT_BYTES,
    MAX_PAYLOAD_BYTES,
    UNIT_BYTES,
    VERSION,
    Cursor,
    Source,
    Stream,
)
from compression.errors import PackedError

CRC_BYTES = 4


@dataclass(frozen=True)
class PackedName:
    """A file in a packed file. The first need not have a name; the others' lead below its folder."""

    name: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Bytes of a file, in order, and how they were stored."""

    file: int
    data: bytes
    stored: int
    dtype: int = 0
    """Of a tensor: ONNX's number of its element type; 0 for the bytes around tensors."""
    tensor: int = 0
    """Of a tensor: how many stand before it in its file."""
    codecs: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Operation:
    literal: int
    dtype: int = 0
    units: int = 0
    columns: int = 1

    def chunks(self, tensor: int) -> Iterator[Chunk]:
        return chunks_of(tensor, self.units, UNIT_BYTES[self.dtype], self.columns)


class Unpacker:
    """Reads a source of which only `read(size)` is used. Sizes are checked before anything is allocated.

    Raises:
        PackedError: here or while pieces are taken: it is no packed file, of another version, larger than
            `max_output_bytes` once unpacked, or damaged. What pieces gave before is then worth nothing.
    """

    def __init__(self, source: Source, *, max_output_bytes: int = MAX_OUTPUT_BYTES) -> None:
        self._stream = Stream(source)
        self.files = _header(self._stream)
        total = sum(file.size for file in self.files)
        if total > max_output_bytes:
            raise PackedError(
                f"it unpacks to {total} bytes where {max_output_bytes} are allowed", where="header"
            )
        self.header_bytes = self._stream.offset

    def pieces(self) -> Iterator[Piece]:
        """All files one after the other; the memory held is that of a few chunks."""
        for index in range(len(self.files)):
            yield from self._file(index)
        if not self._stream.at_end():
            raise PackedError("more bytes follow after the last file", where="end of file")

    def _file(self, index: int) -> Iterator[Piece]:
        left, digest, tensors = self.files[index].size, hashlib.sha256(), 0
        while left:
            for piece in self._group(index, tensors):
                left -= len(piece.data)
                if left < 0:
                    raise PackedError("it holds more bytes than its header says", where=f"file {index}")
                digest.update(piece.data)
                tensors = max(tensors, piece.tensor + 1) if piece.dtype else tensors
                yield piece
        if self._stream.take(DIGEST_BYTES) != digest.digest()[:DIGEST_BYTES]:
            raise PackedError("what came out does not have the SHA-256 that was kept", where=f"file {index}")

    def _group(self, index: int, tensors: int) -> Iterator[Piece]:
        began = self._stream.offset
        operations, literals = _control(self._stream)
        stored = self._stream.offset - began
        decoded = self._decoded(_chunks(operations), f"file {index}", tensors)
        for tensor, operation in _numbered(operations):
            if operation.literal:
                yield Piece(file=index, data=literals.take(operation.literal), stored=stored)
                stored = 0
            for _ in operation.chunks(tensor):
                chunk = next(decoded)
                yield Piece(
                    file=index,
                    data=chunk.units.tobytes(),
                    stored=chunk.stored,
                    dtype=operation.dtype,
                    tensor=tensors + tensor,
                    codecs=chunk.names,
                )
        # Goes past the last chunk, where what is left over is refused.
        next(decoded, None)
        literals.end()

    def _decoded(self, chunks: Iterator[Chunk], file: str, tensors: int) -> Iterator[Decoded]:
        for batch in batches(chunks):
            where = f"{file}, tensor {tensors + batch[0].tensor}, unit {batch[0].start} and after"
            began = self._stream.offset
            size = self._stream.varint(_most(batch), where)
            shared = self._stream.offset - began
            with _located(where):
                for decoded in decode_batch(self._stream.take(size), [chunk.form for chunk in batch]):
                    yield replace(decoded, stored=shared + decoded.stored)
                    shared = 0


def _numbered(operations: list[_Operation]) -> Iterator[tuple[int, _Operation]]:
    """Each operation, and how many tensors come before it."""
    tensors = 0
    for operation in operations:
        yield tensors, operation
        tensors += operation.units > 0


def _chunks(operations: list[_Operation]) -> Iterator[Chunk]:
    for tensor, operation in _numbered(operations):
        yield from operation.chunks(tensor)


def _most(batch: list[Chunk]) -> int:
    """Bytes of a batch's payload."""
    units = sum(chunk.form.size_bytes for chunk in batch)
    return min(MAX_PAYLOAD_BYTES, units + units // 16 + 64 * len(batch))


@contextmanager
def _located(where: str) -> Iterator[None]:
    """Tells the place of what is refused within."""
    try:
        yield
    except PackedError as error:
        error.where = where
        raise


def _header(stream: Stream) -> tuple[PackedName, ...]:
    start = stream.take(len(MAGIC) + 1)
    if start[:-1] != MAGIC:
        raise PackedError("it does not begin as a packed file does", where="header")
    if start[-1] != VERSION:
        raise PackedError(
            f"it is of version {start[-1]}; this reads version {VERSION}",
            where="header",
            hint="read it with the Modelpress that wrote it, or a newer one",
        )
    size = stream.varint(MAX_HEADER_BYTES, "header")
    body = stream.take(size)
    if stream.take(CRC_BYTES) != zlib.crc32(start + body).to_bytes(CRC_BYTES, "little"):
        raise PackedError("its checksum is another", where="header")
    cursor = Cursor(body, "header")
    names = []
    for index in range(cursor.varint(MAX_FILES)):
        name = cursor.take(cursor.varint(MAX_NAME_BYTES))
        names.append(PackedName(_named(name, index), cursor.varint(1 << 62)))
    cursor.end()
    if not names or len({file.name for file in names}) < len(names):
        raise PackedError("it names no file, or one twice", where="header")
    return tuple(names)


def _named(name: bytes, index: int) -> str:
    """A relative path that stays below the folder it is unpacked to."""
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PackedError("a file name is not UTF-8", where="header") from error
    parts = PurePosixPath(text).parts
    if (not text and index) or text.startswith("/") or ".." in parts or set(text) & {"\\", "\x00", ":"}:
        raise PackedError(f"the file name {text!r} leads outside", where="header")
    return text


def _control(stream: Stream) -> tuple[list[_Operation], Cursor]:
    where = f"group at byte {stream.offset}"
    size = stream.varint(MAX_CONTROL_BYTES, where)
    frame = stream.take(stream.varint(MAX_CONTROL_BYTES, where))
    with _located(where):
        cursor = Cursor(unpacked(frame, size, primed=True), where)
    operations = [_operation(cursor, where) for _ in range(cursor.varint(GROUP_OPERATIONS))]
    if not any(operation.literal or operation.units for operation in operations):
        raise PackedError("it gives nothing", where=where)
    return operations, cursor


def _operation(cursor: Cursor, where: str) -> _Operation:
    literal, dtype = cursor.varint(GROUP_BYTES), cursor.byte()
    if dtype == 0:
        return _Operation(literal)
    units, columns = cursor.varint(1 << 62), cursor.varint(CHUNK_UNITS)
    if not UNIT_BYTES[dtype] or not units or not columns or units % columns:
        raise PackedError(f"{units} units of type {dtype} in rows of {columns}", where=where)
    return _Operation(literal, dtype, units, columns)
