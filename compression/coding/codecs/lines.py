"""Mostly one value, where the others follow each other from line to line: what a pixel's neighbours' weights do."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import numpy as np

from compression.coding.codec import Array, Coded, Decode, Encode, Form, Incoming, Units, check, joined
from compression.coding.codecs.sparse import background_of, filled
from compression.coding.symbols import Run, bernoulli_code, bit_frequencies

MAX_LINES = 1 << 12
MAX_DISTANCES, MAX_DISTANCE, MAX_LEVELS = 4, 255, 8
_LEVELS = ((1, 1), (2, 4), (4, 1), (4, 4), (5, 1))
_FARTHEST = 64
_FEWEST_CELLS, _MOST_CELLS, _FEWEST_ONES = 1024, 1 << 19, 32
"""Few gain less than a context costs; many take long to read, line by line."""


@dataclass(frozen=True)
class Context:
    """What a cell's chance of a one is told by, all of it from lines before its own.

    1. How many of the cells at the same place, `distances` lines before, are ones.
    2. How many ones there were at this place, against the mean of all places: `history` levels.
    3. How many ones the lines at those distances (the last one where there are none) hold: `density` levels.
    """

    distances: tuple[int, ...]
    history: int
    density: int

    @property
    def size(self) -> int:
        return (len(self.distances) + 1) * self.history * self.density

    @property
    def looked_at(self) -> tuple[int, ...]:
        return self.distances or (1,)

    def of(self, near: Array, held: Array, total: Array, ones: Array) -> Array:
        """Cells' contexts from those sums; `held` and `near` by place, `total` and `ones` by line."""
        length = held.shape[-1]
        own, mean = 2 * length * (2 * held.astype(np.int64) + 1), 2 * total.astype(np.int64) + length
        found = np.zeros(held.shape, np.int64)
        for level in range(self.history - 1):
            found += own >= mean << level
        dense = np.zeros(total.shape, np.int64)
        for level in range(1, self.density):
            dense += ones >= len(self.looked_at) * ((1 << level) - 1)
        return np.asarray(near + (len(self.distances) + 1) * (found + self.history * dense))

    def everywhere(self, mask: Array) -> Array:
        """The context of each cell of a whole mask, line by line."""
        before = np.zeros((MAX_DISTANCE, mask.shape[1]), mask.dtype)
        padded = np.concatenate([before, mask])
        back = {d: padded[MAX_DISTANCE - d : len(padded) - d] for d in self.looked_at}
        near = sum((back[d].astype(np.int64) for d in self.distances), np.zeros(mask.shape, np.int64))
        held = np.cumsum(padded[MAX_DISTANCE - 1 : -1], axis=0, dtype=np.int64)
        ones = sum(lines.sum(axis=1, dtype=np.int64) for lines in back.values())
        return self.of(near, held, held.sum(axis=1, keepdims=True), np.asarray(ones)[:, None])


class Lines:
    """A bit a unit as in mask, its chance that of its context in the lines before; rows or columns are lines."""

    number: ClassVar[int] = 10
    name: ClassVar[str] = "lines"

    def encode(self, units: Units, nested: Encode) -> Iterator[Coded]:
        found = background_of(units)
        if (
            found is None
            or min(units.rows, units.columns) < 8
            or not _FEWEST_CELLS <= units.count <= _MOST_CELLS
        ):
            return
        background, ones = found
        if len(ones) < _FEWEST_ONES or max(units.rows, units.columns) > MAX_LINES:
            return
        mask = np.zeros(units.count, np.uint8)
        mask[ones] = 1
        matrix = mask.reshape(units.rows, units.columns)
        offers = [
            self._best(turned, np.ascontiguousarray(matrix.T if turned else matrix)) for turned in (0, 1)
        ]
        best = min(offers, key=lambda offer: offer.cost)
        yield joined(self.name, background, best, nested(Units(units.values[ones])))

    def _best(self, turned: int, mask: Array) -> Coded:
        context = min(_contexts(mask), key=lambda context: _bytes(context, mask))
        cells = context.everywhere(mask).reshape(-1)
        held = np.bincount(cells, minlength=context.size)
        ones = np.bincount(cells, mask.reshape(-1), minlength=context.size)
        codes = np.asarray([bernoulli_code(*pair) for pair in zip(ones, held, strict=True)], np.uint8)
        own = bytes([turned, len(context.distances), *context.distances, context.history, context.density])
        run = Run(symbols=mask.reshape(-1), frequencies=bit_frequencies(codes[cells]))
        return Coded(names=(), side=own + codes.tobytes(), runs=(run,))

    def decode(self, incoming: Incoming, form: Form, nested: Decode) -> Array:
        values = filled(incoming, form)
        turned = incoming.side.byte()
        count = incoming.side.byte()
        check(turned <= 1 and count <= MAX_DISTANCES, "lines of an unknown kind")
        context = Context(tuple(incoming.side.take(count)), incoming.side.byte(), incoming.side.byte())
        levels = context.history, context.density
        check(0 not in (*context.distances, *levels), "a distance or a number of levels is 0")
        check(max(levels) <= MAX_LEVELS, f"more than {MAX_LEVELS} levels")
        shape = (form.columns, form.rows) if turned else (form.rows, form.columns)
        check(shape[0] <= MAX_LINES, f"more than {MAX_LINES} lines")
        tables = bit_frequencies(np.frombuffer(incoming.side.take(context.size), np.uint8))
        mask = _read(incoming, context, tables, shape)
        others = np.flatnonzero((mask.T if turned else mask).view(np.bool_))
        values[others] = nested(form.flat(len(others)))
        return values


def _read(incoming: Incoming, context: Context, tables: Array, shape: tuple[int, int]) -> Array:
    """The mask, line after line."""
    padded = np.zeros((MAX_DISTANCE + shape[0], shape[1]), np.uint8)
    sums = [0] * len(padded)
    held, total = np.zeros(shape[1], np.int64), 0
    for line in range(MAX_DISTANCE, len(padded)):
        near = sum(
            (padded[line - d].astype(np.int64) for d in context.distances), np.zeros(shape[1], np.int64)
        )
        ones = sum(sums[line - d] for d in context.looked_at)
        cells = context.of(near, held, np.asarray(total), np.asarray(ones))
        found = incoming.symbols.read_each(tables[cells])
        padded[line] = found
        held += found
        sums[line] = int(found.sum())
        total += sums[line]
    return padded[MAX_DISTANCE:]


def _contexts(mask: Array) -> Iterator[Context]:
    """Those worth trying: the last lines, and the one in which ones most often come again (a row of an image)."""
    width = min(_FARTHEST, len(mask) - 1)
    again = [int((mask[d:] & mask[:-d]).sum()) * len(mask) // (len(mask) - d) for d in range(2, width)]
    far = 2 + int(np.argmax(again)) if again else 2
    near: tuple[tuple[int, ...], ...] = ((), (1,), (1, 2), (1, far), (1, far - 1, far, far + 1))
    for distances, (history, density) in product(dict.fromkeys(near), _LEVELS):
        if len(set(distances)) == len(distances) and (distances or density == 1):
            yield Context(distances, history, density)


def _bytes(context: Context, mask: Array) -> float:
    cells = context.everywhere(mask).reshape(-1)
    held = np.bincount(cells, minlength=context.size)
    ones = np.bincount(cells, mask.reshape(-1), minlength=context.size)
    share = np.clip(ones / np.maximum(held, 1), 1e-9, 1 - 1e-9)
    bits = -(ones * np.log2(share) + (held - ones) * np.log2(1 - share)).sum()
    return float(bits) / 8 + context.size
