"""What a child says, taken apart with care: lines of JSON, bounded in length, number and depth of trust."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from worker.failures import broken_protocol, output_flood

_LINE_BYTES = 16 * 2**20
_TOTAL_BYTES = 256 * 2**20
_LINES_AT_ONCE = 5000
_LINES_PER_S = 500


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Event(_Message):
    kind: str = Field(pattern="^event$")
    event: dict[str, Any]


class _Timing(_Message):
    kind: str = Field(pattern="^timing$")
    wanted: bool


class _Result(_Message):
    kind: str = Field(pattern="^result$")
    result: dict[str, Any]


class _Error(_Message):
    kind: str = Field(pattern="^error$")
    code: str = Field(pattern="^[a-z0-9_]{1,60}$")
    message: str = Field(max_length=20_000)
    where: str | None = Field(None, max_length=2_000)
    hint: str | None = Field(None, max_length=20_000)


_MESSAGE: TypeAdapter[_Event | _Timing | _Result | _Error] = TypeAdapter(_Event | _Timing | _Result | _Error)


class Messages:
    """Collects bytes and gives whole messages."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._lines = 0
        self._bytes = 0

    def feed(self, chunk: bytes, age_s: float) -> Iterator[Mapping[str, Any]]:
        """The messages that are complete. Raises `Failed`:

        `output_flood` for too much since `age_s` seconds, `broken_protocol` for anything odd.
        """
        self._bytes += len(chunk)
        self._rest += chunk
        *lines, rest = self._rest.split(b"\n") if b"\n" in chunk else (self._rest,)
        self._rest = bytearray(rest)
        self._lines += len(lines)
        too_many = self._lines > _LINES_AT_ONCE + _LINES_PER_S * age_s
        if too_many or self._bytes > _TOTAL_BYTES or len(self._rest) > _LINE_BYTES:
            raise output_flood()
        for line in lines:
            yield _parse(line)


def _parse(line: bytes | bytearray) -> Mapping[str, Any]:
    try:
        document = json.loads(bytes(line), parse_constant=_no_constant)
        return _MESSAGE.validate_python(document).model_dump()
    except (ValueError, RecursionError, ValidationError) as error:
        raise broken_protocol("a message that is none") from error


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
