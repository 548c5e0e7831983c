"""Symbols under fixed tables: one for a chunk, or one for each crossing of row and column classes."""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from compression.coding.classes import Classes, by_score, read_classes
from compression.coding.codec import Array, Coded, Decode, Encode, Form, Incoming, Units, check, joined
from compression.coding.symbols import read_table, table

GRIDS = ((8, 1), (1, 4), (4, 4), (8, 8), (16, 16))
_MOST_DISTINCT = 4096
_FEWEST = 4096


class Ans:
    """Asymmetric numeral systems (Duda 2015) under one table for all units."""

    number: ClassVar[int] = 3
    name: ClassVar[str] = "ans"

    def encode(self, units: Units, nested: Encode) -> Iterator[Coded]:
        if units.width <= 2 and units.count and len(units.distinct[0]) <= _MOST_DISTINCT:
            own = table(units.histogram)
            yield Coded(names=(self.name,), side=own.side, runs=(*own.runs, own.run(units.values)))

    def decode(self, incoming: Incoming, form: Form, nested: Decode) -> Array:
        return _read(incoming, form, form.count)


class Grid:
    """The same with a table for each block of a row class and a column class."""

    number: ClassVar[int] = 4
    name: ClassVar[str] = "grid"

    def encode(self, units: Units, nested: Encode) -> Iterator[Coded]:
        for classes in grids(units):
            side, runs = classes.coded()
            for block in classes.blocks(_matrix(units)):
                own = table(np.bincount(block, minlength=256))
                side += own.side
                runs += (*own.runs, own.run(block))
            yield Coded(names=(self.name,), side=side, runs=runs)

    def decode(self, incoming: Incoming, form: Form, nested: Decode) -> Array:
        classes = read_classes(incoming, form.rows, form.columns)
        ordered = np.empty((form.rows, form.columns), form.dtype)
        for above, below, left, right in classes.bounds():
            part = _read(incoming, form, (below - above) * (right - left))
            ordered[above:below, left:right] = part.reshape(below - above, right - left)
        return classes.restored(ordered).reshape(-1)


class Sorted:
    """Block after block of such a grid, coded by something else."""

    number: ClassVar[int] = 5
    name: ClassVar[str] = "sorted"

    def encode(self, units: Units, nested: Encode) -> Iterator[Coded]:
        for classes in grids(units):
            side, runs = classes.coded()
            inner = nested(Units(np.concatenate(classes.blocks(_matrix(units)))))
            yield joined(self.name, side, inner, runs=runs)

    def decode(self, incoming: Incoming, form: Form, nested: Decode) -> Array:
        classes = read_classes(incoming, form.rows, form.columns)
        flat = nested(form.flat(form.count))
        ordered = np.empty((form.rows, form.columns), form.dtype)
        at = 0
        for above, below, left, right in classes.bounds():
            size = (below - above) * (right - left)
            ordered[above:below, left:right] = flat[at : at + size].reshape(below - above, right - left)
            at += size
        return classes.restored(ordered).reshape(-1)


def grids(units: Units) -> Iterator[Classes]:
    """The classes worth trying, by how much information a row's or column's units hold: the best one alone."""
    if units.width != 1 or units.count < _FEWEST or min(units.rows, units.columns) < 4:
        return
    matrix = _matrix(units)
    surprise = -np.log2((units.histogram + 0.5) / units.count).astype(np.float32)[matrix]
    rows, columns = surprise.mean(axis=1), surprise.mean(axis=0)
    found = [
        Classes(by_score(rows, min(down, units.rows)), by_score(columns, min(across, units.columns)))
        for down, across in GRIDS
    ]
    yield min(found, key=lambda classes: _estimate(classes, matrix))


def _estimate(classes: Classes, matrix: Array) -> float:
    """Bytes under a table for each block."""
    across = classes.shape[1]
    cells = (classes.rows[:, None] * across + classes.columns) * 256 + matrix
    counts = np.bincount(cells.reshape(-1), minlength=classes.shape[0] * across * 256).reshape(-1, 256)
    total = counts.sum(axis=1, keepdims=True)
    bits = -(counts * np.log2(np.maximum(counts, 1) / np.maximum(total, 1))).sum()
    naming = sum(len(lines) * np.log2(lines.max() + 1) * 0.9 for lines in (classes.rows, classes.columns))
    return float(bits + naming) / 8 + float((counts > 0).sum())


def _matrix(units: Units) -> Array:
    return units.values.reshape(units.rows, units.columns)


def _read(incoming: Incoming, form: Form, count: int) -> Array:
    check(form.width <= 2, f"symbols for units of {form.width} bytes")
    alphabet = 1 << 8 * form.width
    found, first = read_table(incoming.side, incoming.symbols, alphabet)
    symbols = incoming.symbols.read(found, count)
    symbols += first
    return symbols.astype(form.dtype)
