"""The contract of a codec: units in, coded parts out, and back."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from compression.coding.symbols import Run, Symbols
from compression.coding.wire import Cursor
from compression.errors import PackedError

Array = NDArray[Any]
MAX_DEPTH = 4
"""Codecs within codecs."""


@dataclass(frozen=True)
class Form:
    """What a decoder knows of the units it is to give: how many, of how many bytes, and how long a row is."""

    count: int
    width: int
    columns: int

    @property
    def rows(self) -> int:
        return self.count // self.columns

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(f"<u{self.width}")

    def flat(self, count: int, width: int | None = None) -> "Form":
        """Units without rows."""
        return Form(count, width or self.width, 1)


@dataclass(frozen=True)
class Units:
    """A chunk on its way in: unsigned integers of one width, row after row."""

    values: Array
    columns: int = 1

    @property
    def count(self) -> int:
        return len(self.values)

    @property
    def width(self) -> int:
        return self.values.dtype.itemsize

    @property
    def rows(self) -> int:
        return self.count // self.columns

    @cached_property
    def histogram(self) -> Array:
        """Of units of one or two bytes."""
        return np.bincount(self.values, minlength=1 << 8 * self.width)

    @cached_property
    def distinct(self) -> tuple[Array, Array]:
        """The values that occur, in order, and how often each does."""
        if self.width <= 2:
            there = np.flatnonzero(self.histogram)
            return there.astype(self.values.dtype), self.histogram[there]
        return np.unique(self.values, return_counts=True)


@dataclass(frozen=True, kw_only=True)
class Coded:
    """What became of units: bytes that are read in order, and symbols for the chunk's one stream."""

    names: tuple[str, ...]
    """Codecs from the outermost in."""
    side: bytes
    runs: tuple[Run, ...] = ()

    @cached_property
    def cost(self) -> float:
        """Bytes; a chunk's true size is at most four more."""
        return len(self.side) + sum(run.bits for run in self.runs) / 8

    @property
    def symbols(self) -> int:
        return sum(len(run.symbols) for run in self.runs)


@dataclass
class Incoming:
    """A chunk on its way out."""

    side: Cursor
    symbols: Symbols
    names: list[str] = field(default_factory=list)


Encode = Callable[[Units], Coded]
Decode = Callable[[Form], Array]


class Codec(Protocol):
    """One way to code units.

    `encode` gives what it can offer, each without the codec's number in front; `nested` codes parts by whatever is
    smallest for them. `decode` gives `form.count` units of `form.dtype` or raises `PackedError`; it allocates no
    more than a few times their size, whatever it reads.
    """

    number: ClassVar[int]
    name: ClassVar[str]

    def encode(self, units: Units, nested: Encode) -> Iterator[Coded]: ...

    def decode(self, incoming: Incoming, form: Form, nested: Decode) -> Array: ...


def joined(name: str, own: bytes, *parts: Coded, runs: tuple[Run, ...] = ()) -> Coded:
    """A codec's own bytes and symbols, then those of what it nests."""
    names = tuple(dict.fromkeys(inner for part in parts for inner in part.names))
    return Coded(
        names=(name, *names),
        side=own + b"".join(part.side for part in parts),
        runs=runs + tuple(run for part in parts for run in part.runs),
    )


def numbered(number: int, coded: Coded) -> Coded:
    return replace(coded, side=bytes([number]) + coded.side)


def check(sound: bool, message: str) -> None:
    if not sound:
        raise PackedError(message)
