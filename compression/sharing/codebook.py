"""A tensor as indices into a codebook."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compression.sharing.clustering import (
    Floats,
    Initial,
    cluster,
    cluster_by_rate,
    cluster_vectors,
    nearest,
    within,
)


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """How values are shared, as the fields of share_weights describe it."""

    entries: int
    initial: Initial
    vector: int
    group: int | None
    keep_zeros: bool
    rate: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class Codebook:
    """`values[group, index]` stands for a run of d weights in stored order."""

    values: Floats
    """(groups, entries, d); entries that a group does not use are 0."""
    indices: NDArray[np.uint8]
    """The weight's shape for d = 1; else with the last axis, or all of them flat, shorter by d."""
    groups: NDArray[np.int64]
    """The group of each index; broadcasts to `indices`."""
    zero: bool
    """Entry 0 of every group is 0, and stays so."""

    @property
    def entries(self) -> int:
        return int(self.values.shape[1])

    @property
    def bits(self) -> int:
        """Of an index."""
        return max((self.entries - 1).bit_length(), 1)

    def codes(self) -> NDArray[np.int64]:
        """For each weight, in stored order, the number of the shared value that it has."""
        depth = self.values.shape[2]
        number = (self.groups * self.entries + self.indices).reshape(-1)
        return np.asarray(number[:, None] * depth + np.arange(depth)).reshape(-1)

    def decoded(self) -> Floats:
        """The weights, flat."""
        return np.asarray(self.values.reshape(-1)[self.codes()])

    def entropy(self) -> float:
        """Bits of an index where each is coded by its frequency."""
        counts = np.bincount(self.indices.reshape(-1), minlength=1)
        shares = counts[counts > 0] / max(self.indices.size, 1)
        return float(-(shares * np.log2(shares)).sum()) + 0.0


def learn_codebook(weight: NDArray[Any], axis: int, sharing: Sharing) -> Codebook | str:
    """k-means of a tensor's values, or the reason why it cannot be shared so.

    Args:
        weight: any shape, finite, not empty.
        axis: of the output channels, of which `sharing.group` have a codebook together.
    """
    depth = sharing.vector
    shape = _index_shape(weight.shape, axis, sharing)
    if isinstance(shape, str):
        return shape
    groups = _groups(shape, axis, sharing.group)
    vectors = weight.astype(np.float64).reshape(-1, depth)
    zero = sharing.keep_zeros and bool((vectors == 0).all(axis=1).any())
    of_vector = np.broadcast_to(groups, shape).reshape(-1)
    books, indices = [], np.zeros(len(vectors), np.uint8)
    for group in range(int(groups.max()) + 1):
        mine = of_vector == group
        book, indices[mine] = _one(vectors[mine], sharing, zero)
        books.append(book)
    return Codebook(values=_stacked(books), indices=indices.reshape(shape), groups=groups, zero=zero)


def _index_shape(shape: tuple[int, ...], axis: int, sharing: Sharing) -> tuple[int, ...] | str:
    """One index for each run of weights, in as many axes as can be."""
    depth = sharing.vector
    if depth == 1:
        return shape
    if shape[-1] % depth == 0 and (sharing.group is None or axis != len(shape) - 1):
        return (*shape[:-1], shape[-1] // depth)
    if sharing.group is None and int(np.prod(shape)) % depth == 0:
        return (int(np.prod(shape)) // depth,)
    within = " within a channel" if sharing.group else ""
    return f"its shape {list(shape)} does not divide into vectors of {depth}{within}"


def _one(vectors: Floats, sharing: Sharing, zero: bool) -> tuple[Floats, NDArray[np.uint8]]:
    """Centroids (k, d) of one group and the index of each vector; with `zero` the first is 0."""
    indices = np.zeros(len(vectors), np.int64)
    learned = ~(vectors == 0).all(axis=1) if zero else np.ones(len(vectors), bool)
    book = np.zeros((0, vectors.shape[1]))
    if learned.any() and sharing.rate:
        book, indices[learned] = _by_rate(vectors[learned, 0], zero, int((~learned).sum()), sharing)
    elif learned.any():
        book, found = _centroids(vectors[learned], sharing.entries - zero, sharing)
        indices[learned] = found + zero
    if zero:
        book = np.concatenate([np.zeros((1, vectors.shape[1])), book])
    return book, indices.astype(np.uint8)


def _by_rate(values: Floats, zero: bool, zeros: int, sharing: Sharing) -> tuple[Floats, NDArray[np.int64]]:
    """Centroids but for 0, and each value's number; with `zero` that of 0 is before all others."""
    worth = sharing.rate * float((values**2).mean())
    entries = sharing.entries - (zero and not zeros)
    book, borders = cluster_by_rate(values, entries, sharing.initial, sharing.seed, zeros=zeros, rate=worth)
    found = within(values, borders)
    if not zeros:
        return book[:, None], found + zero
    place = int(np.flatnonzero(book == 0)[0])
    return np.delete(book, place)[:, None], np.where(found == place, 0, found + (found < place))


def _centroids(vectors: Floats, entries: int, sharing: Sharing) -> tuple[Floats, NDArray[np.int64]]:
    if vectors.shape[1] > 1:
        return cluster_vectors(vectors, entries, sharing.seed)
    book = cluster(vectors[:, 0], entries, sharing.initial, sharing.seed)
    return book[:, None], nearest(vectors[:, 0], book)


def _groups(shape: tuple[int, ...], axis: int, group: int | None) -> NDArray[np.int64]:
    """Numbers of groups along the axis, in a shape that broadcasts to `shape`."""
    if group is None:
        return np.zeros([1] * len(shape), np.int64)
    numbers = np.arange(shape[axis]) // group
    return numbers.reshape([-1 if place == axis else 1 for place in range(len(shape))])


def _stacked(books: list[Floats]) -> Floats:
    most = max(len(book) for book in books)
    return np.stack([np.pad(book, ((0, most - len(book)), (0, 0))) for book in books])
