"""Entropy coding of small integers: tables of frequencies that both sides build alike, and one ANS stream a chunk.

The coder is `constriction`'s ANS with 32-bit words, a 64-bit state and probabilities of 24 bits. Frequencies are
integers that sum to 2^24, so that no floating point decides what a decoder reads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from constriction import stream
from numpy.typing import NDArray

from compression.coding.wire import Cursor, varint
from compression.errors import PackedError

Array = NDArray[Any]
PRECISION = 24
TOTAL = 1 << PRECISION
WORD_BYTES = 4
MAX_ALPHABET = 1 << 16
_MANTISSA = 16
_TOP = 31 << 14
_BERNOULLI_BITS = 16
_CELLS = 8


@dataclass(frozen=True, kw_only=True)
class Run:
    """Symbols 0..V-1 that share one table of V frequencies, or have one each, as rows."""

    symbols: Array
    frequencies: Array

    @property
    def bits(self) -> float:
        if self.frequencies.ndim == 2:
            own = np.take_along_axis(self.frequencies, self.symbols[:, None].astype(np.int64), axis=1)
            return float((PRECISION - np.log2(own)).sum())
        if len(self.frequencies) == 1:
            return 0.0
        counts = np.bincount(self.symbols, minlength=len(self.frequencies))
        return float((counts * (PRECISION - np.log2(self.frequencies))).sum())


def weight_of(code: int | Array) -> Any:
    """What a table's byte stands for: 0, or (16 + low four bits) << high four bits of the byte less one."""
    value = np.asarray(code, dtype=np.int64) - 1
    return np.where(value < 0, 0, (_MANTISSA + (value & 15)) << np.maximum(value >> 4, 0))


_WEIGHT_OF = weight_of(np.arange(256))
_WEIGHTS = _WEIGHT_OF[1:241]


def codes_of(counts: Array) -> Array:
    """The table's bytes for counts: the nearest weights with the largest count on top, 0 for none."""
    scaled = counts * (_TOP / max(int(counts.max()), 1)) if counts.max() * _MANTISSA > _TOP else counts * 16.0
    at = np.searchsorted(_WEIGHTS, scaled).clip(1, len(_WEIGHTS) - 1)
    nearer = at - (scaled - _WEIGHTS[at - 1] < _WEIGHTS[at] - scaled)
    return np.where(counts > 0, nearer + 1, 0).astype(np.uint8)


def frequencies(codes: Array) -> Array:
    """Integers of at least 1 that sum to 2^24: 1 + floor(w (2^24 - V) / sum w), what is left to the largest.

    Raises:
        PackedError: all weights are zero.
    """
    weights = _WEIGHT_OF[codes]
    total = int(weights.sum())
    if total == 0:
        raise PackedError("a table of frequencies is empty")
    share = weights * (TOTAL - len(weights)) // total
    share[int(weights.argmax())] += TOTAL - len(weights) - int(share.sum())
    return np.asarray(share + 1)


@dataclass(frozen=True)
class Table:
    """A table on its way in: where its values begin, its size, and its bytes as differences, in the stream."""

    side: bytes
    runs: tuple[Run, ...]
    frequencies: Array
    first: int
    alphabet: int

    def run(self, values: Array) -> Run:
        """The values as symbols under this table."""
        symbols = (values.astype(np.int64) - self.first) % self.alphabet
        return Run(symbols=symbols.astype(np.int32), frequencies=self.frequencies)


def table(counts: Array) -> Table:
    """The table of a histogram over all values of a type.

    The values that occur lie within an arc of the circle of all values (so that -1 is beside 0); the table
    covers the shortest.
    """
    there = np.flatnonzero(counts)
    gaps = np.diff(np.append(there, there[0] + len(counts)))
    widest = int(gaps.argmax())
    first = int(there[(widest + 1) % len(there)])
    size = len(counts) - int(gaps[widest]) + 1
    side = varint(first) + varint(size - 1)
    if size == 1:
        return Table(side, (), np.asarray([TOTAL]), first, len(counts))
    codes = codes_of(counts[(first + np.arange(size)) % len(counts)])
    steps = np.mod(np.diff(codes.astype(np.int64), prepend=_BEFORE_FIRST), 256)
    run = Run(symbols=steps, frequencies=_STEPS)
    return Table(side, (run,), frequencies(codes), first, len(counts))


def read_table(side: Cursor, symbols: "Symbols", alphabet: int) -> tuple[Array, int]:
    """Frequencies and first value of a table for values below `alphabet`."""
    first = side.varint(alphabet - 1)
    size = side.varint(alphabet - 1) + 1
    if size == 1:
        return np.asarray([TOTAL]), first
    steps = symbols.read(_STEPS, size).astype(np.int64)
    codes = np.asarray((steps.cumsum() + _BEFORE_FIRST) % 256)
    if int(codes.max()) > len(_WEIGHTS):
        raise PackedError("a byte of a table is above 240")
    return frequencies(codes), first


def bernoulli_code(ones: float, cells: float) -> int:
    """The byte for a share of ones, as `bernoulli` reads it."""
    wanted = max(ones, 0.02) / max(cells, 1) * (1 << _BERNOULLI_BITS)
    return int(np.abs(np.log2(_PROBABILITIES / wanted)).argmin())


@cache
def bernoulli(code: int) -> Array:
    """Frequencies of eight cells at once, each a one with probability k / 2^16; the first cell is the high bit.

    A pattern with m ones gets max(1, floor(k^m (2^16 - k)^(8-m) / 2^104)); what is left goes to all zeros, or to all
    ones where k is more than 2^15.
    """
    chance = _probability(code)
    other = (1 << _BERNOULLI_BITS) - chance
    shift = _CELLS * _BERNOULLI_BITS - PRECISION
    by_ones = [max(1, chance**m * other ** (_CELLS - m) >> shift) for m in range(_CELLS + 1)]
    found = np.asarray([by_ones[pattern.bit_count()] for pattern in range(1 << _CELLS)], dtype=np.int64)
    found[-1 if chance > other else 0] += TOTAL - int(found.sum())
    return found


def bit_frequencies(codes: Array) -> Array:
    """For each byte, the frequencies of 0 and of 1 with probability k / 2^16."""
    ones = _PROBABILITIES[codes] << PRECISION - _BERNOULLI_BITS
    return np.stack([TOTAL - ones, ones], axis=-1)


def _probability(code: int) -> int:
    return max(1, (_MANTISSA + (code & 15)) << (code >> 4) >> 4)


def encode(runs: Sequence[Run]) -> tuple[bytes, list[int]]:
    """All runs as one stream that `Symbols` reads in their order, and how many words go with reading each."""
    coder = stream.stack.AnsCoder()
    words = [0]
    for run in reversed(runs):
        if run.frequencies.ndim == 2 and len(run.symbols):
            coder.encode_reverse(run.symbols.astype(np.int32), *_models(run.frequencies))
        elif len(run.frequencies) > 1 and len(run.symbols):
            coder.encode_reverse(run.symbols.astype(np.int32), _model(run.frequencies))
        words.append(coder.num_words())
    coded: bytes = coder.get_compressed().astype("<u4").tobytes()
    return coded.rstrip(b"\x00"), np.diff(words)[::-1].tolist()


class Symbols:
    """Reads runs from a stream, in the order in which they were given to `encode`."""

    def __init__(self, coded: bytes) -> None:
        words = np.frombuffer(coded + bytes(-len(coded) % 4), "<u4").astype(np.uint32)
        if coded.endswith(b"\x00"):
            raise PackedError("a symbol stream ends with a zero")
        self._coder = stream.stack.AnsCoder(words) if len(words) else stream.stack.AnsCoder()

    @property
    def words(self) -> int:
        """How many are left."""
        return int(self._coder.num_words())

    def read(self, table: Array, count: int) -> Array:
        """`count` symbols of 0..V-1 as int32. Damaged bytes give other symbols; `end` tells."""
        if len(table) == 1 or not count:
            return np.zeros(count, np.int32)
        return np.asarray(self._coder.decode(_model(table), count))

    def read_each(self, tables: Array) -> Array:
        """A symbol for each row of `tables`."""
        return np.asarray(self._coder.decode(*_models(tables)))

    def end(self) -> None:
        if not self._coder.is_empty():
            raise PackedError("a symbol stream is longer than its symbols")


def _model(table: Array) -> Any:
    """Every symbol gets one part in 2^24 by itself, the rest in proportion: here exactly, for it sums to the rest."""
    return stream.model.Categorical((table - 1).astype(np.float64), perfect=False)


def _models(tables: Array) -> tuple[Any, Array]:
    """The same for symbols with a table each."""
    return stream.model.Categorical(perfect=False), (tables - 1).astype(np.float64)


_PROBABILITIES = np.asarray([_probability(code) for code in range(256)], dtype=np.int64)
_BEFORE_FIRST = 120
_STEPS = frequencies(np.asarray([max(64, 200 - 4 * min(step, 256 - step)) for step in range(256)]))
"""Of differences between a table's bytes."""
