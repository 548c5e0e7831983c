"""Mostly one value: where the others are, and what they are."""

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from compression.coding.classes import Classes, by_ones, read_classes
from compression.coding.codec import Array, Coded, Decode, Encode, Form, Incoming, Units, check, joined
from compression.coding.symbols import Run, bernoulli, bernoulli_code, read_table, table
from compression.coding.wire import varint

GRIDS = ((1, 1), (4, 1), (1, 4), (2, 2), (4, 4), (4, 8), (8, 4), (8, 8), (16, 16))
_FILLER = 255
_LEAST_SHARE = 0.25
"""Of the commonest unit, from which on bits for it may take less than codes of whole bits."""


class Mask:
    """A bit a unit, whether it is other than the commonest; its chance is that of its row's and column's class."""

    number: ClassVar[int] = 8
    name: ClassVar[str] = "mask"

    def encode(self, units: Units, nested: Encode) -> Iterator[Coded]:
        found = background_of(units, _LEAST_SHARE)
        if found is None:
            return
        background, ones = found
        row, column = np.divmod(ones, units.columns)
        classes = _cheapest(row, column, (units.rows, units.columns))
        mask = np.zeros((units.rows, units.columns), np.uint8)
        mask[row, column] = 1
        blocks = classes.blocks(mask)
        codes = [bernoulli_code(float(block.sum()), block.size) for block in blocks]
        side, runs = classes.coded()
        cells = tuple(
            Run(symbols=np.packbits(block), frequencies=bernoulli(code))
            for block, code in zip(blocks, codes, strict=True)
        )
        others = nested(Units(units.values[ones]))
        yield joined(self.name, background + side + bytes(codes), others, runs=runs + cells)

    def decode(self, incoming: Incoming, form: Form, nested: Decode) -> Array:
        values = filled(incoming, form)
        classes = read_classes(incoming, form.rows, form.columns)
        bounds = classes.bounds()
        codes = incoming.side.take(len(bounds))
        ordered = np.empty((form.rows, form.columns), np.uint8)
        for (above, below, left, right), code in zip(bounds, codes, strict=True):
            size = (below - above) * (right - left)
            cells = incoming.symbols.read(bernoulli(code), -(-size // 8)).astype(np.uint8)
            ordered[above:below, left:right] = np.unpackbits(cells, count=size).reshape(
                below - above, right - left
            )
        others = np.flatnonzero(classes.restored(ordered).view(np.bool_))
        values[others] = nested(form.flat(len(others)))
        return values


class Gaps:
    """How many of the commonest unit stand before each other one; 255 of them alone where more do.

    Han, Mao and Dally 2016 (arXiv:1510.00149), section 2, with 8 bits, entropy coded as in section 4.
    """

    number: ClassVar[int] = 9
    name: ClassVar[str] = "gaps"

    def encode(self, units: Units, nested: Encode) -> Iterator[Coded]:
        found = background_of(units)
        if found is None:
            return
        background, ones = found
        distances = np.diff(ones, prepend=-1) - 1
        fillers = distances // _FILLER
        gaps = np.full(int(fillers.sum()) + len(ones), _FILLER, np.uint8)
        gaps[np.cumsum(fillers + 1) - 1] = distances % _FILLER
        own = table(np.bincount(gaps, minlength=256))
        side = background + varint(len(gaps)) + own.side
        yield joined(self.name, side, nested(Units(units.values[ones])), runs=(*own.runs, own.run(gaps)))

    def decode(self, incoming: Incoming, form: Form, nested: Decode) -> Array:
        values = filled(incoming, form)
        count = incoming.side.varint(form.count)
        frequencies, first = read_table(incoming.side, incoming.symbols, 256)
        gaps = (incoming.symbols.read(frequencies, count).astype(np.int64) + first) % 256
        real = gaps < _FILLER
        places = (np.cumsum(gaps + real) - 1)[real]
        check(not len(places) or int(places[-1]) < form.count, "a gap leads past the end")
        values[places] = nested(form.flat(len(places)))
        return values


def background_of(units: Units, share: float = 0.5) -> tuple[bytes, Array] | None:
    """The commonest unit and where it is not, for units of which at least that share are that one."""
    if units.count < 16:
        return None
    distinct, counts = units.distinct
    at = int(counts.argmax())
    if len(distinct) == 1 or counts[at] < share * units.count:
        return None
    return distinct[at : at + 1].tobytes(), np.flatnonzero(units.values != distinct[at])


def filled(incoming: Incoming, form: Form) -> Array:
    background = np.frombuffer(incoming.side.take(form.width), form.dtype)
    return np.repeat(background, form.count)


def _cheapest(row: Array, column: Array, shape: tuple[int, int]) -> Classes:
    """The classes under which ones at these places take the fewest bytes."""
    found = [by_ones(row, column, shape, grid) for grid in GRIDS if _sensible(grid, shape)]
    return min(found, key=lambda classes: _bits(classes, row, column))


def _sensible(grid: tuple[int, int], shape: tuple[int, int]) -> bool:
    whole = grid == (1, 1)
    return whole or (
        min(shape) >= 4 and all(2 * part <= size for part, size in zip(grid, shape, strict=True))
    )


def _bits(classes: Classes, row: Array, column: Array) -> float:
    down, across = classes.shape
    ones = np.bincount(classes.rows[row] * across + classes.columns[column], minlength=down * across)
    held = np.bincount(classes.rows, minlength=down), np.bincount(classes.columns, minlength=across)
    cells = np.outer(*held).reshape(-1)
    naming = sum(_entropy(counts) + 8 * len(counts) for counts in held if len(counts) > 1)
    return float(sum(_entropy(np.stack([ones, cells - ones], axis=1), axis=1)) + naming + 8 * len(ones))


def _entropy(counts: Array, axis: int = 0) -> Any:
    """Bits of so many symbols of each kind."""
    total = counts.sum(axis=axis, keepdims=True)
    return -(counts * np.log2(np.maximum(counts, 1) / np.maximum(total, 1))).sum(axis=axis)
