"""Joins axes that lose the same positions, and takes an axis apart into several."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from compression.graph.channels.halving import APART_EVENLY, deal, halve
from compression.graph.channels.labels import (
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
    tidy,
)
from compression.graph.channels.lining import TAKEN_APART, chain, flatten, lock, lock_of, part, single
from compression.graph.channels.sizes import ONE, Size, product
from compression.graph.channels.units import Units


def join(units: Units, first: Label, second: Label) -> Label:
    """Both axes, of one size, lose the same positions. Returns either, as far as possible as a product."""
    if first is second or (size_of(first) == ONE and size_of(second) == ONE):
        return first
    for one, other in ((first, second), (second, first)):
        if is_rigid(one):
            lock(units, other, lock_of(one))
            known = size_of(one).known or not size_of(other).known
            return one if known else rigid(size_of(other), lock_of(one))
    if len(first) == 1 and len(second) == 1:
        return (_join_products(units, first[0], second[0]),)
    return _join_pieces(units, first, second)


def broadcast(units: Units, first: Label, second: Label) -> Label:
    """As `join`, but an axis of size 1 goes with every other."""
    if size_of(first) == ONE:
        return second
    return first if size_of(second) == ONE else join(units, first, second)


def divide(units: Units, label: Label, sizes: Sequence[Size]) -> list[Label]:
    """One axis as several of these sizes, outer first."""
    if len(sizes) == 1:
        return [label]
    if len(label) == 1:
        divided = deal(units, label[0], sizes)
        if divided is None:
            lock(units, label, TAKEN_APART)
            return [rigid(size, units.lock_id(TAKEN_APART)) for size in sizes]
        return divided
    if not all(size.known for size in sizes):
        return divide(units, single(units, label), sizes)
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


def _split_pieces(units: Units, label: Label, outer: int, inner: int) -> tuple[Label, Label]:
    """Of an axis of several segments: as a vector where it is one, else in equal parts."""
    vector = plain(label)
    if vector is not None:
        first, second = halve(units, vector, Size(outer), Size(inner))
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
    first, second = halve(units, factor, size, over)
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
