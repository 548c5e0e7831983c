"""The contract of a codec: units in, coded parts out, and back."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from compression.coding.symbols import WORD_BYTES, Run, Symbols
from compression.coding.wire import Cursor
from compression.errors import PackedError

Array = NDArray[Any]
MAX_DEPTH = 4
"""Codecs within codecs."""
_WHOLE_BITS = 1.004
"""What Huffman codes take of the entropy of bytes near noise."""
_SPIKE_BITS = 0.03
"""What pools take more where one value is common: its share is another in each tensor, and no whole number of bits."""
_TOLD_BITS = 2.0
"""What a value takes in the table of a pool, which chunks share."""


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
    def size_bytes(self) -> int:
        return self.count * self.width

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
    taps: int = 1
    """Of the kernels that rows consist of."""

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
    pools: tuple[tuple[int, Array], ...] = ()
    """Bytes that are coded with those of the same number in all chunks of a batch."""

    @cached_property
    def cost(self) -> float:
        """Bytes; what starts a stream, and what its pools' tables cost, is shared by a batch."""
        return len(self.side) + (sum(run.bits for run in self.runs) + _pooled_bits(self.pools)) / 8

    @property
    def symbols(self) -> int:
        return sum(len(run.symbols) for run in self.runs)


class Pools:
    """Bytes by number, of which each chunk of a batch takes the next."""

    def __init__(self, found: Mapping[int, Array], stored: Mapping[int, int]) -> None:
        self._found, self._stored = found, stored
        self._at = dict.fromkeys(found, 0)
        self.left_bytes = sum(stored.values())
        """Of what is stored, the share of bytes that were not taken."""

    def take(self, number: int, size: int) -> Array:
        at = self._at.get(number)
        stop = (at or 0) + size
        if at is None or stop > len(self._found[number]):
            raise PackedError(f"pool {number} is shorter than what is taken from it")
        found, stored = self._found[number], self._stored[number]
        self._at[number] = stop
        self.left_bytes -= stored * stop // len(found) - stored * at // len(found)
        return found[at:stop]

    def end(self) -> None:
        check(all(len(self._found[number]) == at for number, at in self._at.items()), "a pool is left over")


@dataclass
class Incoming:
    """A chunk on its way out."""

    side: Cursor
    symbols: Symbols
    pools: Pools = field(default_factory=lambda: Pools({}, {}))
    names: list[str] = field(default_factory=list)

    @property
    def left_bytes(self) -> int:
        """Of what is stored, as far as it was not read."""
        return self.side.left + WORD_BYTES * self.symbols.words + self.pools.left_bytes


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
        pools=tuple(pool for part in parts for pool in part.pools),
    )


def numbered(number: int, coded: Coded) -> Coded:
    return replace(coded, side=bytes([number]) + coded.side)


def _pooled_bits(pools: Iterable[tuple[int, Array]]) -> float:
    """The entropy of each pool's part here, and a share of its table."""
    held: dict[int, Array] = {}
    for number, block in pools:
        held[number] = held.get(number, 0) + np.bincount(block, minlength=256)
    bits = 0.0
    for counts in held.values():
        there = counts[counts > 0]
        chances = there / there.sum()
        taken = _WHOLE_BITS + _SPIKE_BITS * float(chances.max())
        bits += float(-(there @ np.log2(chances))) * taken + _TOLD_BITS * len(there)
    return bits


def check(sound: bool, message: str) -> None:
    if not sound:
        raise PackedError(message)
