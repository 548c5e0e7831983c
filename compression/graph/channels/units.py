"""The units of a model while it is read: numbers for them, which of them leave together, which must stay."""

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

Vector = np.ndarray
"""Ids of units, one for each position, int64."""


class Place(NamedTuple):
    """An axis that brings units of its own: of a stored tensor, or of one that a node makes up.

    A small tensor that several nodes share, such as a bias of zeros, counts once for each of them: then `user`
    is the node and `operand` the number of its input.
    """

    value: ir.Value
    axis: int
    user: ir.Node | None = None
    operand: int = 0


Segments = tuple[tuple[int, ...], ...]
"""How the positions of such an axis lie: one segment after another, each a product of factors, outer first."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Ids in a row: one factor of one segment of a place."""

    start: int
    size: int
    place: Place
    segment: int
    factor: int
    alone: bool
    """It is the only factor of its segment."""


@dataclass(frozen=True, kw_only=True)
class Demand:
    """A part of a block that is to become a product of two factors."""

    block: Block
    start: int
    sizes: tuple[int, int]


@dataclass
class Units:
    """Numbers units and notes what ties them. `structure` says which places are products of which factors.

    Somebody who finds on the way that a place should be a product asks for it by `demand`, and the reading
    starts anew; once `settled`, such units are tied together instead.
    """

    structure: dict[Place, Segments] = field(default_factory=dict)
    settled: bool = False
    count: int = 0
    locks: dict[int, str] = field(default_factory=dict)
    demands: list[Demand] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    pieces: list[Vector] = field(default_factory=list)
    """Units of which one has to stay, since they are an axis of their own somewhere."""
    _starts: list[int] = field(default_factory=list)
    _reasons: dict[str, int] = field(default_factory=dict)
    _ties: list[tuple[Vector, Vector]] = field(default_factory=list)

    def fresh(self, size: int) -> Vector:
        self.count += size
        return np.arange(self.count - size, self.count, dtype=np.int64)

    def source(self, place: Place, size: int) -> list[list[Vector]]:
        """New units for a place: its segments, each a list of factors."""
        segments = self.structure.get(place, ((size,),))
        return [
            [
                self._block(place, index, number, len(sizes) == 1, factor)
                for number, factor in enumerate(sizes)
            ]
            for index, sizes in enumerate(segments)
        ]

    def lock_id(self, reason: str) -> int:
        """A unit that always stays, the same for the same reason."""
        if reason not in self._reasons:
            self._reasons[reason] = int(self.fresh(1)[0])
            self.locks[self._reasons[reason]] = reason
        return self._reasons[reason]

    def tie(self, first: Vector, second: Vector) -> None:
        """Position by position, both leave or both stay."""
        if first is not second and first.size:
            self._ties.append((first, second))

    def lock(self, vector: Vector, lock: int) -> None:
        self.tie(vector, np.full_like(vector, lock))

    def touched_since(self, mark: int) -> list[Vector]:
        """All units tied or locked since there were `mark` ties."""
        return [vector for pair in self._ties[mark:] for vector in pair]

    @property
    def ties(self) -> int:
        return len(self._ties)

    def demand(self, vector: Vector, outer: int, inner: int) -> bool:
        """Asks that these units be a product; says whether that can be."""
        block = self._block_of(vector)
        if self.settled or block is None or not (block.alone or vector.size == block.size):
            return False
        self.demands.append(Demand(block=block, start=int(vector[0]) - block.start, sizes=(outer, inner)))
        return True

    def blocks_of(self, vector: Vector) -> list[int]:
        """The blocks that these units come from, by index; units outside of blocks are passed over."""
        found = np.unique(np.searchsorted(self._starts, vector, side="right") - 1)
        return [
            int(index)
            for index in found
            if index >= 0 and bool((vector < self.blocks[index].start + self.blocks[index].size).any())
        ]

    def roots(self) -> Vector:
        """For every unit the first of those that it is tied with."""
        root = np.arange(self.count, dtype=np.int64)
        if not self._ties:
            return root
        first = np.concatenate([pair[0] for pair in self._ties])
        second = np.concatenate([pair[1] for pair in self._ties])
        while True:
            least = np.minimum(root[first], root[second])
            lower = root.copy()
            np.minimum.at(lower, root[first], least)
            np.minimum.at(lower, root[second], least)
            lower = _settle(lower)
            if np.array_equal(lower, root):
                return root
            root = lower

    def _block(self, place: Place, segment: int, factor: int, alone: bool, size: int) -> Vector:
        vector = self.fresh(size)
        block = Block(
            start=int(vector[0]), size=size, place=place, segment=segment, factor=factor, alone=alone
        )
        self.blocks.append(block)
        self._starts.append(block.start)
        return vector

    def _block_of(self, vector: Vector) -> Block | None:
        """The block in which these units lie in a row."""
        if not np.array_equal(vector, np.arange(vector[0], vector[0] + vector.size)):
            return None
        index = bisect_right(self._starts, int(vector[0])) - 1
        block = self.blocks[index] if index >= 0 else None
        fits = block is not None and vector[0] + vector.size <= block.start + block.size
        return block if fits else None


def _settle(root: Vector) -> Vector:
    while True:
        above = root[root]
        if np.array_equal(above, root):
            return root
        root = above


def refined(structure: dict[Place, Segments], demands: list[Demand]) -> dict[Place, Segments]:
    """The structure with the first demand on each segment granted; what is left will be asked for again."""
    granted: set[tuple[Place, int]] = set()
    result = dict(structure)
    for demand in sorted(demands, key=lambda item: -item.block.segment):
        block = demand.block
        if (block.place, block.segment) in granted:
            continue
        granted.add((block.place, block.segment))
        segments = result.get(block.place, ((block.size,),))
        result[block.place] = (
            *segments[: block.segment],
            *_split(segments[block.segment], demand),
            *segments[block.segment + 1 :],
        )
    return result


def _split(sizes: tuple[int, ...], demand: Demand) -> Segments:
    factor, size = demand.block.factor, demand.sizes[0] * demand.sizes[1]
    if size == sizes[factor]:
        return ((*sizes[:factor], *demand.sizes, *sizes[factor + 1 :]),)
    before, after = demand.start, sizes[factor] - demand.start - size
    return tuple(part for part in ((before,), demand.sizes, (after,)) if part != (0,))
