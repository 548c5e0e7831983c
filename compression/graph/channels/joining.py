"""What operators do to axes: join two, take one apart, merge several, cut pieces, line pieces up."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from compression.graph.channels.labels import (
    UNIT,
    Factor,
    Label,
    Rigid,
    Segment,
    factor_size,
    is_rigid,
    plain,
    rigid,
    segment_size,
    size_of,
    spread,
    tidy,
    vectors,
)
from compression.graph.channels.sizes import ONE, Size, product
from compression.graph.channels.units import Units, Vector

TAKEN_APART = "they are taken apart in ways that do not fit together"
APART_EVENLY = "the parts into which they are taken apart stay alike"


def lock(units: Units, label: Label, reason: str | int) -> None:
    """All units of an axis stay."""
    found = vectors(label)
    if found:
        number = units.lock_id(reason) if isinstance(reason, str) else reason
        for vector in found:
            units.lock(vector, number)


def join(units: Units, first: Label, second: Label) -> Label:
    """Both axes, of one size, lose the same positions. Returns either, as far as possible as a product."""
    if first is second or (size_of(first) == ONE and size_of(second) == ONE):
        return first
    for one, other in ((first, second), (second, first)):
        if is_rigid(one):
            lock(units, other, _lock_of(one))
            known = size_of(one).known or not size_of(other).known
            return one if known else rigid(size_of(other), _lock_of(one))
    if len(first) == 1 and len(second) == 1:
        return (_join_products(units, first[0], second[0]),)
    return _join_pieces(units, first, second)


def broadcast(units: Units, first: Label, second: Label) -> Label:
    """As `join`, but an axis of size 1 goes with every other."""
    if size_of(first) == ONE:
        return second
    return first if size_of(second) == ONE else join(units, first, second)


def merge(units: Units, labels: Sequence[Label]) -> Label:
    """Several axes as one, outer first."""
    several = [label for label in labels if size_of(label) != ONE]
    if not several:
        return UNIT
    if any(len(label) > 1 for label in several[1:]):
        several = [several[0], *(_single(units, label) for label in several[1:])]
    rest = [factor for label in several[1:] for factor in label[0]]
    if len(several[0]) > 1 and not all(factor_size(factor).known for factor in rest):
        several[0] = _single(units, several[0])
    return tuple(tidy((*segment, *rest)) for segment in several[0])


def divide(units: Units, label: Label, sizes: Sequence[Size]) -> list[Label]:
    """One axis as several of these sizes, outer first."""
    if len(sizes) == 1:
        return [label]
    if len(label) == 1:
        divided = _divide(units, label[0], sizes)
        if divided is None:
            lock(units, label, TAKEN_APART)
            return [rigid(size, units.lock_id(TAKEN_APART)) for size in sizes]
        return divided
    if not all(size.known for size in sizes):
        return divide(units, _single(units, label), sizes)
    inner = product(sizes[1:])
    outer, rest = _split_pieces(units, label, sizes[0].number, inner.number)
    return [outer, *divide(units, rest, sizes[1:])]


def split(units: Units, label: Label, outer: int) -> tuple[Label, Label]:
    """An axis as `outer` parts of equal size: the axis of the parts and the axis inside them."""
    size = size_of(label)
    inner = size.over(Size(outer))
    if inner is None:
        lock(units, label, TAKEN_APART)
        number = units.lock_id(TAKEN_APART)
        return rigid(Size(outer), number), rigid(Size(1), number)
    first, second = divide(units, label, [Size(outer), inner])
    return first, second


def fold(units: Units, label: Label, outer: int) -> Label:
    """An axis as `outer` equal parts that lose the same positions: the axis inside them."""
    size = size_of(label).number
    parts = [part(units, label, start, start + size // outer) for start in range(0, size, size // outer)]
    joined = parts[0]
    for other in parts[1:]:
        joined = join(units, joined, other)
    return joined


def part(units: Units, label: Label, start: int, stop: int) -> Label:
    """The positions from start to stop of an axis of known size."""
    if (start, stop) == (0, size_of(label).number):
        return label
    pieces: list[Segment] = []
    offset = 0
    for segment in label:
        size = segment_size(segment).number
        first, last = max(start - offset, 0), min(stop - offset, size)
        if first < last:
            pieces.append(_part(units, segment, first, last))
        offset += size
    return chain(units, [(piece,) for piece in pieces])


def select(units: Units, label: Label, indices: np.ndarray) -> Label:
    """The positions at these indices of an axis of known size, as they come."""
    return _checked(units, flatten(units, label)[indices])


def chain(units: Units, labels: Sequence[Label]) -> Label:
    """Axes one after another, as one."""
    several = [label for label in labels if size_of(label).number]
    if len(several) == 1:
        return several[0]
    if not all(size_of(label).known for label in several):
        return _unknown(units, several)
    if all(is_rigid(label) for label in several):
        total = sum(size_of(label).number for label in several)
        return rigid(Size(total), _lock_of(several[0])) if several else UNIT
    segments: list[Segment] = []
    for segment in (segment for label in several for segment in label):
        vector = _alone(units, segment)
        last = segments[-1] if segments else ()
        if vector is None:
            segments.append(segment)
        elif len(last) == 1 and not isinstance(last[0], Rigid):
            segments[-1] = (np.concatenate([last[0], vector]),)
        else:
            segments.append((vector,))
    return tuple(segments)


def flatten(units: Units, label: Label) -> Vector:
    """One unit for each position of an axis of known size; of crossing factors only the longest can leave."""
    for segment in label:
        found = sorted(vectors((segment,)), key=len, reverse=True)
        for vector in found[1:]:
            units.lock(vector, units.lock_id(TAKEN_APART))
    return np.concatenate([_located(units, segment) for segment in label])


def _lock_of(label: Label) -> int:
    return next((factor.lock for segment in label for factor in segment if isinstance(factor, Rigid)), 0)


def _located(units: Units, segment: Segment) -> Vector:
    """Units by position; an axis of size 1 stays for good."""
    if segment:
        return spread(segment)
    return np.full(1, units.lock_id("a single one is put beside others"), dtype=np.int64)


def _alone(units: Units, segment: Segment) -> Vector | None:
    return _located(units, segment) if len(vectors((segment,))) <= 1 else None


def _checked(units: Units, vector: Vector) -> Label:
    """A single position cannot leave, or the axis would be empty."""
    if len(vector) > 1:
        return ((vector,),)
    units.lock(vector, units.lock_id("a single one is taken out"))
    return UNIT


def _single(units: Units, label: Label) -> Label:
    return label if len(label) == 1 else ((flatten(units, label),),)


def _unknown(units: Units, labels: Sequence[Label]) -> Label:
    reason = "they are put beside an axis of unknown size"
    for label in labels:
        lock(units, label, reason)
    return rigid(Size(1, (f"chain {units.fresh(1)[0]}",)), units.lock_id(reason))


def _part(units: Units, segment: Segment, start: int, stop: int) -> Segment:
    size = segment_size(segment).number
    if (start, stop) == (0, size) or not segment:
        return segment
    inner = size // factor_size(segment[0]).number
    if start % inner or stop % inner:
        label = _checked(units, flatten(units, (segment,))[start:stop])
        return label[0]
    head = segment[0]
    count = (stop - start) // inner
    if isinstance(head, Rigid):
        return tidy([Rigid(Size(count), head.lock), *segment[1:]])
    if count == 1:
        units.lock(head[start // inner : stop // inner], units.lock_id("a single one is taken out"))
    return tidy([head[start // inner : stop // inner], *segment[1:]])


def _divide(units: Units, segment: Segment, sizes: Sequence[Size]) -> list[Label] | None:
    """Deals the factors out to the sizes, cutting a factor in two where one size ends inside it."""
    waiting = list(segment)
    result: list[Label] = []
    for size in sizes:
        taken: list[Factor] = []
        missing = size
        while missing != ONE:
            if not waiting:
                return None
            factor = waiting.pop(0)
            left, over = missing.over(factor_size(factor)), factor_size(factor).over(missing)
            if left is not None:
                taken.append(factor)
                missing = left
            elif over is not None:
                first, second = _halve(units, factor, missing, over)
                taken.append(first)
                waiting.insert(0, second)
                break
            else:
                return None
        result.append((tidy(taken),))
    return result if not tidy(waiting) else None


def _halve(units: Units, factor: Factor, outer: Size, inner: Size) -> tuple[Factor, Factor]:
    """A factor as a product of two."""
    if isinstance(factor, Rigid):
        return Rigid(outer, factor.lock), Rigid(inner, factor.lock)
    grid = factor.reshape(outer.number, inner.number)
    rows = bool((grid == grid[:, :1]).all())
    columns = bool((grid == grid[:1]).all())
    if not rows and not columns and units.demand(factor, outer.number, inner.number):
        return units.fresh(outer.number), units.fresh(inner.number)
    stays = units.lock_id(APART_EVENLY)
    if rows or (outer.number >= inner.number and not columns):
        units.tie(np.repeat(grid[:, 0], inner.number), grid.reshape(-1))
        return grid[:, 0], Rigid(inner, stays)
    units.tie(np.tile(grid[0], outer.number), grid.reshape(-1))
    return Rigid(outer, stays), grid[0]


def _split_pieces(units: Units, label: Label, outer: int, inner: int) -> tuple[Label, Label]:
    """Of an axis of several segments: as a vector where it is one, else in equal parts."""
    vector = plain(label)
    if vector is not None:
        first, second = _halve(units, vector, Size(outer), Size(inner))
        return (tidy([first]),), (tidy([second]),)
    return rigid(Size(outer), units.lock_id(APART_EVENLY)), fold(units, label, outer)


def _join_products(units: Units, first: Segment, second: Segment) -> Segment:
    size = segment_size(first)
    if size.known and size == segment_size(second):
        vectors_ = [plain((segment,)) for segment in (first, second)]
        if vectors_[0] is not None and vectors_[1] is not None:
            units.tie(vectors_[0], vectors_[1])
            return first if len(first) > len(second) else second if len(second) > 1 else first
    if not _compatible(first, second):
        return _join_flat(units, first, second)
    ones, others, result = list(first), list(second), list[Factor]()
    while ones and others:
        one, other = ones.pop(0), others.pop(0)
        if factor_size(one) != factor_size(other):
            one, ones = _shorten(units, one, ones, factor_size(other))
            other, others = _shorten(units, other, others, factor_size(one))
        result.append(_tie(units, one, other))
    return tidy(result)


def _shorten(units: Units, factor: Factor, rest: list[Factor], size: Size) -> tuple[Factor, list[Factor]]:
    """Cuts a factor down to a size, where it is a multiple of it; what is over goes to the others."""
    over = factor_size(factor).over(size)
    if over is None or over == ONE:
        return factor, rest
    first, second = _halve(units, factor, size, over)
    return first, [second, *rest]


def _compatible(first: Segment, second: Segment) -> bool:
    """Whether the factors of both have a common refinement."""
    ones, others = [factor_size(item) for item in first], [factor_size(item) for item in second]
    while ones and others:
        one, other = ones.pop(0), others.pop(0)
        left, over = one.over(other), other.over(one)
        if left is None and over is None:
            return False
        if left is not None and left != ONE:
            ones.insert(0, left)
        if over is not None and over != ONE:
            others.insert(0, over)
    return not ones and not others


def _join_flat(units: Units, first: Segment, second: Segment) -> Segment:
    if not (segment_size(first).known and segment_size(first) == segment_size(second)):
        for segment in (first, second):
            lock(units, (segment,), "they meet an axis whose size is not known")
        return first
    vector = flatten(units, (first,))
    units.tie(vector, flatten(units, (second,)))
    return (vector,)


def _tie(units: Units, first: Factor, second: Factor) -> Factor:
    if isinstance(first, Rigid):
        lock(units, ((second,),), first.lock)
        return first
    if isinstance(second, Rigid):
        units.lock(first, second.lock)
        return second
    units.tie(first, second)
    return first


def _join_pieces(units: Units, first: Label, second: Label) -> Label:
    """Cuts both where either has a border, and joins piece by piece."""
    if not (size_of(first).known and size_of(first) == size_of(second)):
        for label in (first, second):
            lock(units, label, "they meet an axis whose size is not known")
        return first
    borders = sorted({*_borders(first), *_borders(second)})
    pieces = [
        join(units, part(units, first, start, stop), part(units, second, start, stop))
        for start, stop in pairwise(borders)
    ]
    return chain(units, pieces)


def _borders(label: Label) -> list[int]:
    sizes = [segment_size(segment).number for segment in label]
    return [0, *np.cumsum(sizes).tolist()]
