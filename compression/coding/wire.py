"""The smallest parts of a packed file: its constants, its integers, and reading that is never past an end."""

from typing import Protocol

from compression.errors import PackedError

MAGIC = b"\x89MPK"
VERSION = 2
DIGEST_BYTES = 8
"""Of SHA-256, kept of each file."""
CHUNK_UNITS = 1 << 20
"""A tensor is coded in pieces of at most so many units of 1, 2, 4 or 8 bytes."""
GROUP_BYTES = 1 << 20
"""Structure bytes that one group holds at most."""
GROUP_OPERATIONS = 4096
MAX_FILES = 64
MAX_NAME_BYTES = 1024
MAX_HEADER_BYTES = 1 << 16
BATCH_BYTES = 1 << 23
"""Of units: chunks of a group share a stream of symbols as long as they are not more together."""
MAX_PAYLOAD_BYTES = 9 << 20
"""Of one batch. A raw chunk takes its own bytes and a few more, so that nothing sound needs as much."""
MAX_CONTROL_BYTES = 2 << 20
MAX_OUTPUT_BYTES = 1 << 36
"""What a decoder unpacks unless it is told another limit."""
UNIT_BYTES = (0, 4, 1, 1, 2, 2, 4, 8, 0, 1, 2, 8, 4, 8, 4, 8, 2, *(1,) * 239)
"""By ONNX's number of an element type: bytes of a unit, 0 where there is none. Elements of less than a byte are taken
as the bytes they are packed in, complex numbers as their two parts."""


class Source(Protocol):
    """Anything with bytes in order: a file, a socket's answer."""

    def read(self, size: int, /) -> bytes: ...


def varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the high bit says that more follow."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class Cursor:
    """Reads through bytes that are in memory.

    Every method raises `PackedError` rather than read past the end.
    """

    def __init__(self, data: bytes, where: str) -> None:
        self._data = data
        self._at = 0
        self._where = where

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        if not 0 <= size <= self.left:
            raise PackedError(f"{size} bytes are due and {self.left} are left", where=self._where)
        self._at += size
        return self._data[self._at - size : self._at]

    def byte(self) -> int:
        if self._at >= len(self._data):
            raise PackedError("a byte is due and none is left", where=self._where)
        self._at += 1
        return self._data[self._at - 1]

    def varint(self, most: int) -> int:
        """An integer of at most `most`."""
        value = 0
        for shift in range(0, 63, 7):
            part = self.byte()
            value |= (part & 0x7F) << shift
            if part < 0x80:
                break
        else:
            raise PackedError("an integer is too long", where=self._where)
        if value > most:
            raise PackedError(f"a size of {value} where at most {most} are allowed", where=self._where)
        return value

    def end(self) -> None:
        if self.left:
            raise PackedError(f"{self.left} bytes are left over", where=self._where)


class Stream:
    """Reads a source in order, exactly as much as is asked for."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.offset = 0

    def take(self, size: int) -> bytes:
        parts: list[bytes] = []
        missing = size
        while missing:
            part = self._source.read(missing)
            if not part:
                raise PackedError(
                    f"it ends after {self.offset} bytes where {missing} more are due", where="end of file"
                )
            self.offset += len(part)
            missing -= len(part)
            parts.append(part)
        return b"".join(parts)

    def varint(self, most: int, where: str) -> int:
        parts = bytearray(self.take(1))
        while parts[-1] >= 0x80 and len(parts) < 10:
            parts += self.take(1)
        return Cursor(bytes(parts), where).varint(most)

    def at_end(self) -> bool:
        return not self._source.read(1)
