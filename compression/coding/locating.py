"""Where the tensors' payloads lie in an ONNX file, found by walking its protobuf messages without decoding them."""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

from compression.coding.wire import UNIT_BYTES

LEAST_BYTES = 64
"""A payload of fewer stays among the bytes of the structure."""
_STRING, _BYTE, _EXTERNAL = 8, 2, 1
_MAX_DEPTH = 100
_LENGTH_DELIMITED = 2

Bytes = bytes | mmap.mmap
Field = tuple[int, int, int, int]
"""Number, wire type, and where the value begins and ends."""

_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
"""Fields of onnx.proto that lead to tensors."""
_DIMS, _DTYPE, _FLOATS, _NAME, _RAW, _DOUBLES, _OUTSIDE, _LOCATION = 1, 2, 4, 8, 9, 10, 13, 14


@dataclass(frozen=True, kw_only=True)
class Payload:
    """Bytes of a tensor: in the file itself, or in another by its `location`."""

    name: str
    dtype: int
    """ONNX's number of the element type."""
    shape: tuple[int, ...]
    start: int
    size: int
    location: str | None = None

    @property
    def kind(self) -> int:
        """The element type, or that of bytes where the size is no whole number of elements."""
        known = 0 < self.dtype < len(UNIT_BYTES) and self.size % width_of(self.dtype) == 0
        return self.dtype if known else _BYTE

    @property
    def width(self) -> int:
        """Bytes of a unit."""
        width = width_of(self.dtype)
        return width if self.size % width == 0 else 1

    @property
    def columns(self) -> int:
        """Units of a row, a row being what the first axis longer than one counts."""
        units = self.size // self.width
        long = [size for size in self.shape if size != 1]
        return units // long[0] if len(long) > 1 and long[0] > 0 and units % long[0] == 0 else 1

    @property
    def taps(self) -> int:
        """Units of a kernel, of what has the shape of a convolution's weights; else 1."""
        taps = prod(self.shape[2:])
        return taps if taps > 0 and self.columns % taps == 0 else 1


def width_of(dtype: int) -> int:
    """Bytes of a unit; of a type that is not known, one."""
    return (UNIT_BYTES[dtype] or 1) if 0 <= dtype < len(UNIT_BYTES) else 1


class Malformed(Exception):
    """The bytes are no message of this kind."""


def locate(data: Bytes) -> list[Payload]:
    """Payloads in the order of their places, none within another; of what is no ONNX model, none."""
    try:
        found = [payload for payload in _walk(data) if payload.size >= LEAST_BYTES]
    except Malformed:
        return []
    kept: list[Payload] = []
    ends: dict[str | None, int] = {}
    for payload in sorted(found, key=lambda payload: (payload.location or "", payload.start)):
        if payload.start >= ends.get(payload.location, 0):
            kept.append(payload)
            ends[payload.location] = payload.start + payload.size
    return kept


def _walk(data: Bytes) -> Iterator[Payload]:
    waiting = [("model", 0, len(data), 0)]
    while waiting:
        kind, start, stop, depth = waiting.pop()
        if depth > _MAX_DEPTH:
            raise Malformed
        children = _CHILDREN[kind]
        for number, wire, at, end in _fields(data, start, stop):
            child = children.get(number) if wire == _LENGTH_DELIMITED else None
            if child == "tensor":
                payload = _tensor(data, at, end)
                if payload is not None:
                    yield payload
            elif child is not None:
                waiting.append((child, at, end, depth + 1))


@dataclass
class _Tensor:
    shape: list[int] = field(default_factory=list)
    dtype: int = 0
    name: str = ""
    inside: tuple[int, int] | None = None
    outside: dict[str, str] = field(default_factory=dict)
    location: int = 0


def _tensor(data: Bytes, start: int, stop: int) -> Payload | None:
    tensor = _Tensor()
    for found in _fields(data, start, stop):
        _take(tensor, data, found)
    if tensor.dtype == _STRING:
        return None
    if tensor.location == _EXTERNAL:
        return _outside(tensor)
    if tensor.inside is None:
        return None
    begin, end = tensor.inside
    return Payload(
        name=tensor.name, dtype=tensor.dtype, shape=tuple(tensor.shape), start=begin, size=end - begin
    )


def _take(tensor: _Tensor, data: Bytes, found: Field) -> None:
    number, wire, at, end = found
    packed = wire == _LENGTH_DELIMITED
    if number in (_RAW, _FLOATS, _DOUBLES) and packed:
        tensor.inside = at, end
    elif number == _DIMS:
        while at < end:
            size, at = _varint(data, at, end)
            tensor.shape.append(size)
    elif number == _DTYPE:
        tensor.dtype = _varint(data, at, end)[0]
    elif number == _LOCATION:
        tensor.location = _varint(data, at, end)[0]
    elif number == _NAME and packed:
        tensor.name = data[at:end].decode("utf-8", "replace")
    elif number == _OUTSIDE and packed:
        entry = {
            key: data[begin:stop].decode("utf-8", "replace") for key, _, begin, stop in _fields(data, at, end)
        }
        tensor.outside[entry.get(1, "")] = entry.get(2, "")


def _outside(tensor: _Tensor) -> Payload | None:
    try:
        start, size = int(tensor.outside.get("offset") or 0), int(tensor.outside.get("length") or 0)
    except ValueError:
        raise Malformed from None
    location = tensor.outside.get("location", "")
    if not location or start < 0 or size < 0:
        raise Malformed
    return Payload(
        name=tensor.name,
        dtype=tensor.dtype,
        shape=tuple(tensor.shape),
        start=start,
        size=size or width_of(tensor.dtype) * _elements(tensor.shape),
        location=location,
    )


def _elements(shape: list[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def _fields(data: Bytes, start: int, stop: int) -> Iterator[Field]:
    at = start
    while at < stop:
        key, at = _varint(data, at, stop)
        wire = key & 7
        if wire == 0:
            _, end = _varint(data, at, stop)
        elif wire == _LENGTH_DELIMITED:
            size, at = _varint(data, at, stop)
            end = at + size
        elif wire in (1, 5):
            end = at + (8 if wire == 1 else 4)
        else:
            raise Malformed
        if end > stop:
            raise Malformed
        yield key >> 3, wire, at, end
        at = end


def _varint(data: Bytes, at: int, stop: int) -> tuple[int, int]:
    value = shift = 0
    while at < stop and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise Malformed
