"""Rows and columns in a few classes each, so that every crossing of classes has statistics of its own."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compression.coding.codec import Incoming, check
from compression.coding.symbols import Run, read_table, table

Array = NDArray[Any]
MAX_CLASSES = 16
_ROUNDS = 8


@dataclass(frozen=True)
class Classes:
    """The class of each row and of each column, counted from 0."""

    rows: Array
    columns: Array

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.rows.max()) + 1, int(self.columns.max()) + 1

    def coded(self) -> tuple[bytes, tuple[Run, ...]]:
        """Each axis as its number of classes and, where there are several, a table; with the symbols."""
        side = b""
        runs: list[Run] = []
        for found, count in zip((self.rows, self.columns), self.shape, strict=True):
            side += bytes([count - 1])
            if count > 1:
                counts = np.bincount(found, minlength=MAX_CLASSES)
                own = table(counts)
                side += own.side
                runs += [*own.runs, own.run(found)]
        return side, tuple(runs)

    def blocks(self, matrix: Array) -> list[Array]:
        """The crossings one after the other, the columns' classes running faster; each row by row."""
        rows, columns = self.shape
        ordered = matrix if rows == 1 else matrix[_by_class(self.rows)]
        ordered = ordered if columns == 1 else ordered[:, _by_class(self.columns)]
        return [ordered[above:below, left:right].reshape(-1) for above, below, left, right in self.bounds()]

    def bounds(self) -> list[tuple[int, int, int, int]]:
        """Of each block, in the matrix with its rows and columns sorted by class."""
        rows, columns = self.shape
        down, across = _edges(self.rows, rows), _edges(self.columns, columns)
        return [(down[i], down[i + 1], across[j], across[j + 1]) for i in range(rows) for j in range(columns)]

    def restored(self, ordered: Array) -> Array:
        """The matrix whose rows and columns, sorted by class, are these."""
        rows, columns = self.shape
        across = ordered if columns == 1 else ordered.take(np.argsort(_by_class(self.columns)), axis=1)
        return across if rows == 1 else across.take(np.argsort(_by_class(self.rows)), axis=0)


def read_classes(incoming: Incoming, rows: int, columns: int) -> Classes:
    found = []
    for length in (rows, columns):
        count = incoming.side.byte() + 1
        check(count <= MAX_CLASSES, f"{count} classes where {MAX_CLASSES} are the most")
        if count == 1:
            found.append(np.zeros(length, np.uint8))
            continue
        frequencies, first = read_table(incoming.side, incoming.symbols, MAX_CLASSES)
        symbols = (incoming.symbols.read(frequencies, length) + first) % MAX_CLASSES
        check(int(symbols.max()) == count - 1, "rows or columns lack a class")
        found.append(symbols.astype(np.uint8))
    return Classes(*found)


def by_score(scores: Array, count: int) -> Array:
    """Classes of near scores, in their order: one-dimensional k-means from quantiles."""
    centres = np.unique(np.quantile(scores, (np.arange(count) + 0.5) / count))
    for _ in range(_ROUNDS):
        found = np.searchsorted((centres[1:] + centres[:-1]) / 2, scores)
        held = np.bincount(found, minlength=len(centres))
        sums = np.bincount(found, scores, len(centres))
        centres = np.sort(sums[held > 0] / held[held > 0])
    return dense(np.searchsorted((centres[1:] + centres[:-1]) / 2, scores))


def by_ones(row: Array, column: Array, shape: tuple[int, int], counts: tuple[int, int]) -> Classes:
    """Classes for a mask with ones at (row, column): start by their number, then move each line to its likeliest.

    Dhillon, Mallela and Modha 2003 (Information-theoretic co-clustering), for a matrix of zeros and ones.
    """
    rows = by_score(np.log1p(np.bincount(row, minlength=shape[0])), counts[0])
    columns = by_score(np.log1p(np.bincount(column, minlength=shape[1])), counts[1])
    for _ in range(_ROUNDS):
        before = rows, columns
        rows = _likeliest(row, column, rows, columns)
        columns = _likeliest(column, row, columns, rows)
        if np.array_equal(before[0], rows) and np.array_equal(before[1], columns):
            break
    return Classes(rows, columns)


def _likeliest(line: Array, place: Array, lines: Array, places: Array) -> Array:
    """The class of each line under which its ones and zeros cost least, what it costs to name the class included."""
    count, across = int(lines.max()) + 1, int(places.max()) + 1
    length = np.bincount(places, minlength=across)
    held = np.bincount(lines, minlength=count)
    ones = np.bincount(line * across + places[place], minlength=len(lines) * across).reshape(-1, across)
    by_class = np.zeros((count, across))
    np.add.at(by_class, lines, ones)
    chance = (by_class + 0.02) / (np.maximum(held[:, None] * length, 1) + 0.04)
    naming = -np.log2(np.maximum(held, 0.5) / len(lines))
    cost = naming - ones @ np.log2(chance).T - (length - ones) @ np.log2(1 - chance).T
    return dense(cost.argmin(axis=1))


def _edges(found: Array, count: int) -> list[int]:
    """Where each class begins in the order of classes, and where the last one ends."""
    if count == 1:
        return [0, len(found)]
    return [0, *np.bincount(found, minlength=count).cumsum().tolist()]


def _by_class(found: Array) -> Array:
    """The lines in the order of their classes."""
    return np.argsort(found, kind="stable")


def dense(found: Array) -> Array:
    """The same classes numbered without gaps."""
    return np.asarray(np.unique(found, return_inverse=True)[1]).reshape(-1).astype(np.int64)
