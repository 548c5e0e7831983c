"""Puts axes beside each other, one inside the other, and takes pieces out of them."""

from collections.abc import Sequence

import numpy as np

from compression.graph.channels.labels import (
    UNIT,
    Label,
    Rigid,
    Segment,
    factor_size,
    is_rigid,
    rigid,
    segment_size,
    size_of,
    spread,
    tidy,
    vectors,
)
from compression.graph.channels.sizes import ONE, Size
from compression.graph.channels.units import Units, Vector

TAKEN_APART = "they are taken apart in ways that do not fit together"


def lock(units: Units, label: Label, reason: str | int) -> None:
    """All units of an axis stay."""
    found = vectors(label)
    if found:
        number = units.lock_id(reason) if isinstance(reason, str) else reason
        for vector in found:
            units.lock(vector, number)


def merge(units: Units, labels: Sequence[Label]) -> Label:
    """Several axes as one, outer first."""
    several = [label for label in labels if size_of(label) != ONE]
    if not several:
        return UNIT
    if any(len(label) > 1 for label in several[1:]):
        several = [several[0], *(single(units, label) for label in several[1:])]
    rest = [factor for label in several[1:] for factor in label[0]]
    if len(several[0]) > 1 and not all(factor_size(factor).known for factor in rest):
        several[0] = single(units, several[0])
    return tuple(tidy((*segment, *rest)) for segment in several[0])


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
        return rigid(Size(total), lock_of(several[0])) if several else UNIT
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


def lock_of(label: Label) -> int:
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


def single(units: Units, label: Label) -> Label:
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
