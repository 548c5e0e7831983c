"""Writes a packed file: which bytes are tensors, and each coded by whatever is smallest for it."""

import hashlib
import mmap
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np

from compression.coding.chunks import Chunk, batches, chunks_of, coded, encode_batch
from compression.coding.codec import Coded, Units
from compression.coding.frames import packed
from compression.coding.locating import Bytes, Payload, locate
from compression.coding.wire import (
    CHUNK_UNITS,
    DIGEST_BYTES,
    GROUP_BYTES,
    GROUP_OPERATIONS,
    MAGIC,
    MAX_FILES,
    VERSION,
    varint,
)
from compression.errors import InvalidModel

Report = Callable[[float, str], None]
_LEVEL = 22
_FEW_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class PackedTensor:
    """What one tensor takes in the packed file."""

    name: str
    dtype: int
    shape: tuple[int, ...]
    size_bytes: int
    stored_bytes: int
    codecs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PackedReport:
    size_bytes: int
    """Of all files that went in."""
    stored_bytes: int
    structure_bytes: int
    """Of what is stored: everything that is no tensor."""
    tensors: tuple[PackedTensor, ...]

    @property
    def ratio(self) -> float:
        return self.size_bytes / max(self.stored_bytes, 1)


def pack_file(source: Path, target: Path, report: Report = lambda fraction, words: None) -> PackedReport:
    """Pack an ONNX file and the files its external data lies in. Files of other kinds are only squeezed by zstd.

    Memory stays at a few chunks of 2^20 units, whatever the size. The same files give the same bytes.

    Raises:
        InvalidModel: an external file is missing, or lies outside the model's folder.
    """
    with ExitStack() as stack:
        first = _open(stack, source)
        payloads = locate(first)
        files = {None: first} | {
            location: _open(stack, _beside(source, location))
            for location in dict.fromkeys(payload.location for payload in payloads)
            if location is not None
        }
        if len(files) > MAX_FILES:
            raise InvalidModel(f"its external data lies in {len(files) - 1} files")
        with target.open("wb") as sink:
            return _Writer(sink, report).write(files, payloads)


def _open(stack: ExitStack, path: Path) -> Bytes:
    file = stack.enter_context(path.open("rb"))
    if not path.stat().st_size:
        return b""
    return stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _beside(source: Path, location: str) -> Path:
    parts = PurePosixPath(location).parts
    path = source.parent.joinpath(*parts)
    inside = not location.startswith("/") and ".." not in parts and not set(location) & {"\\", "\x00", ":"}
    if not inside or path.is_symlink() or not path.is_file():
        raise InvalidModel(f"its external data file {location!r} is missing, or outside its folder")
    return path


@dataclass(frozen=True)
class _Part:
    """Bytes around tensors, then a tensor or none."""

    start: int
    stop: int
    payload: Payload | None = None


class _Writer:
    def __init__(self, sink: BinaryIO, report: Report) -> None:
        self._sink = sink
        self._report = report
        self._told: list[PackedTensor] = []
        self._total = 1
        self._done = 0

    def write(self, files: dict[str | None, Bytes], payloads: list[Payload]) -> PackedReport:
        size = sum(map(len, files.values()))
        self._total = max(size, 1)
        self._sink.write(_header(files))
        for location, data in files.items():
            own = [payload for payload in payloads if payload.location == location]
            for group in _groups(data, [payload for payload in own if _fits(payload, data)]):
                self._group(data, group)
            self._sink.write(_digest(data))
        stored = self._sink.tell()
        return PackedReport(
            size_bytes=size,
            stored_bytes=stored,
            structure_bytes=stored - sum(tensor.stored_bytes for tensor in self._told),
            tensors=tuple(self._told),
        )

    def _group(self, data: Bytes, parts: list[_Part]) -> None:
        control = varint(len(parts)) + b"".join(map(_operation, parts))
        control += b"".join(data[part.start : part.stop] for part in parts)
        frame = packed(control, _LEVEL, primed=True)
        self._sink.write(varint(len(control)) + varint(len(frame)) + frame)
        payloads = [part.payload for part in parts if part.payload is not None]
        stored, names = [0] * len(payloads), [dict[str, None]() for _ in payloads]
        for batch in batches(_chunks(payloads)):
            chunks, payload, sizes = self._smallest(data, payloads, batch)
            size = varint(len(payload))
            self._sink.write(size + payload)
            stored[batch[0].tensor] += len(size)
            for chunk, own, coded_ in zip(batch, sizes, chunks, strict=True):
                stored[chunk.tensor] += own
                names[chunk.tensor] |= dict.fromkeys(coded_.names)
        self._told += map(_told, payloads, stored, names)

    def _smallest(
        self, data: Bytes, payloads: list[Payload], batch: list[Chunk]
    ) -> tuple[list[Coded], bytes, list[int]]:
        """With pools, or without: what few bytes save in pools may not pay for these."""
        few = sum(chunk.form.size_bytes for chunk in batch) <= _FEW_BYTES
        found = []
        for pools in (False, True) if few else (True,):
            chunks = [self._coded(data, payloads[chunk.tensor], chunk, pools) for chunk in batch]
            found.append((chunks, *encode_batch(chunks)))
        return min(found, key=lambda each: len(each[1]))

    def _coded(self, data: Bytes, payload: Payload, chunk: Chunk, pools: bool) -> Coded:
        self._report(self._done / self._total, f"packing {payload.name}")
        start = payload.start + chunk.start * payload.width
        piece = data[start : start + chunk.form.size_bytes]
        self._done += len(piece) if pools else 0
        units = Units(np.frombuffer(piece, chunk.form.dtype), chunk.form.columns, payload.taps)
        return coded(units, pools=pools)


def _chunks(payloads: list[Payload]) -> Iterator[Chunk]:
    for tensor, payload in enumerate(payloads):
        yield from chunks_of(tensor, payload.size // payload.width, payload.width, _columns(payload))


def _told(payload: Payload, stored: int, names: dict[str, None]) -> PackedTensor:
    return PackedTensor(
        name=payload.name,
        dtype=payload.dtype,
        shape=payload.shape,
        size_bytes=payload.size,
        stored_bytes=stored,
        codecs=tuple(names),
    )


def _header(files: dict[str | None, Bytes]) -> bytes:
    body = varint(len(files))
    for location, data in files.items():
        name = (location or "").encode()
        body += varint(len(name)) + name + varint(len(data))
    start = MAGIC + bytes([VERSION])
    return start + varint(len(body)) + body + zlib.crc32(start + body).to_bytes(4, "little")


def _groups(data: Bytes, payloads: list[Payload]) -> Iterator[list[_Part]]:
    """All bytes of a file, in order, in groups of bounded size."""
    group: list[_Part] = []
    room = GROUP_BYTES
    for part in _parts(data, payloads):
        if len(group) == GROUP_OPERATIONS or part.stop - part.start > room:
            yield group
            group, room = [], GROUP_BYTES
        group.append(part)
        room -= part.stop - part.start
    if group:
        yield group


def _parts(data: Bytes, payloads: list[Payload]) -> Iterator[_Part]:
    at = 0
    for payload in payloads:
        *whole, last = _pieces(at, payload.start)
        yield from whole
        yield replace(last, payload=payload)
        at = payload.start + payload.size
    if at < len(data):
        yield from _pieces(at, len(data))


def _pieces(start: int, stop: int) -> list[_Part]:
    cuts = [*range(start, stop, GROUP_BYTES), stop] if start < stop else [start, start]
    return [_Part(left, right) for left, right in pairwise(cuts)]


def _operation(part: _Part) -> bytes:
    head = varint(part.stop - part.start)
    if part.payload is None:
        return head + b"\x00"
    units = part.payload.size // part.payload.width
    return head + bytes([part.payload.kind]) + varint(units) + varint(_columns(part.payload))


def _columns(payload: Payload) -> int:
    return payload.columns if payload.columns <= CHUNK_UNITS else 1


def _fits(payload: Payload, data: Bytes) -> bool:
    return payload.start + payload.size <= len(data)


def _digest(data: Bytes) -> bytes:
    digest = hashlib.sha256()
    for at in range(0, len(data), GROUP_BYTES):
        digest.update(data[at : at + GROUP_BYTES])
    return digest.digest()[:DIGEST_BYTES]
