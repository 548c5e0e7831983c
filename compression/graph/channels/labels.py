"""What lies along one axis: segments one after another, each a product of factors, outer first.

A factor is either rigid, of a size that may be unknown, or a vector of units. A position of the axis leaves
if any of the units that it is made of leaves.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from compression.graph.channels.sizes import ONE, Size, product
from compression.graph.channels.units import Vector


@dataclass(frozen=True, eq=False)
class Rigid:
    """A factor that cannot shrink; `lock` is the unit that always stays and says why."""

    size: Size
    lock: int


Factor = Rigid | Vector
Segment = tuple[Factor, ...]
Label = tuple[Segment, ...]
Labels = tuple[Label, ...]
"""The axes of a value."""

UNIT: Label = ((),)
"""An axis of size 1."""


def factor_size(factor: Factor) -> Size:
    return factor.size if isinstance(factor, Rigid) else Size(len(factor))


def segment_size(segment: Segment) -> Size:
    return product(factor_size(factor) for factor in segment)


def size_of(label: Label) -> Size:
    """Of the whole axis. Only an axis of one segment may have a size that is not known."""
    if len(label) == 1:
        return segment_size(label[0])
    return Size(sum(segment_size(segment).number for segment in label))


def vectors(label: Label) -> list[Vector]:
    return [factor for segment in label for factor in segment if not isinstance(factor, Rigid)]


def is_rigid(label: Label) -> bool:
    return not vectors(label)


def rigid(size: Size, lock: int) -> Label:
    return UNIT if size == ONE else ((Rigid(size, lock),),)


def tidy(factors: Iterable[Factor]) -> Segment:
    """Without factors of size 1, neighbouring rigid factors as one."""
    result: list[Factor] = []
    for factor in factors:
        last = result[-1] if result else None
        if factor_size(factor) == ONE:
            continue
        if isinstance(factor, Rigid) and isinstance(last, Rigid):
            result[-1] = Rigid(last.size * factor.size, last.lock)
        else:
            result.append(factor)
    return tuple(result)


def plain(label: Label) -> Vector | None:
    """The units by position, where every segment has one vector at most and known size."""
    parts = []
    for segment in label:
        if len(vectors((segment,))) > 1 or not segment_size(segment).known:
            return None
        parts.append(spread(segment))
    return np.concatenate(parts)


def spread(segment: Segment) -> Vector:
    """The units of a segment of known size by position; of several vectors the longest counts."""
    sizes = [factor_size(factor).number for factor in segment]
    found = [index for index, factor in enumerate(segment) if not isinstance(factor, Rigid)]
    if not found:
        lock = next((factor.lock for factor in segment if isinstance(factor, Rigid)), 0)
        return np.full(int(np.prod(sizes, dtype=np.int64)), lock, dtype=np.int64)
    longest = max(found, key=lambda index: sizes[index])
    return _along(segment[longest], longest, sizes)


def kept(label: Label, alive: np.ndarray) -> np.ndarray:
    """Which positions of an axis of known size stay, given which units do; booleans."""
    return np.concatenate([_kept(segment, alive) for segment in label])


def positions(segment: Segment, index: int) -> np.ndarray:
    """For each entry of the factor at `index` the positions inside the segment: shape (entries, k)."""
    sizes = [factor_size(factor).number for factor in segment]
    grid = np.arange(int(np.prod(sizes, dtype=np.int64))).reshape(sizes)
    return np.moveaxis(grid, index, 0).reshape(sizes[index], -1)


def _kept(segment: Segment, alive: np.ndarray) -> np.ndarray:
    sizes = [factor_size(factor).number for factor in segment]
    stay = np.ones(int(np.prod(sizes, dtype=np.int64)), dtype=bool)
    for index, factor in enumerate(segment):
        if not isinstance(factor, Rigid):
            stay &= _along(alive[factor], index, sizes)
    return stay


def _along(array: np.ndarray | Factor, axis: int, sizes: Sequence[int]) -> np.ndarray:
    shape = [size if index == axis else 1 for index, size in enumerate(sizes)]
    return np.broadcast_to(np.asarray(array).reshape(shape), sizes).reshape(-1)
