"""Which features of a student answer which of a teacher: where sizes of maps agree, by depth within them.

1. Features fall into stages: those of one rank with the same positions (height and width, or steps).
2. From the student come the last feature of each stage, the last stages first; where there is one stage only,
   the features at the end of each third of it.
3. Each is held to the teacher's feature at the same relative depth in the teacher's stage of the same
   positions; without such a stage, among all its features of the same rank.
"""

from collections.abc import Sequence
from itertools import groupby

from compression.distillation.features import Feature

PAIRS = 3

Match = tuple[Feature, Feature]
"""A student's feature and the teacher's."""


def match_features(
    student: Sequence[Feature], teacher: Sequence[Feature], *, pairs: int = PAIRS
) -> tuple[Match, ...]:
    """Pairs in the student's order; empty where no ranks agree."""
    stages = [tuple(stage) for _, stage in groupby(student, key=_kind)]
    chosen = [stage[-1] for stage in stages[-pairs:]] if len(stages) > 1 else _thirds(student, pairs)
    found = []
    for feature in chosen:
        partner = _partner(feature, student, teacher)
        if partner is not None:
            found.append((feature, partner))
    return tuple(found)


def _kind(feature: Feature) -> tuple[int, ...]:
    return feature.positions


def _thirds(features: Sequence[Feature], parts: int) -> list[Feature]:
    places = {round(part * len(features) / parts) - 1 for part in range(1, parts + 1)}
    return [features[place] for place in sorted(places) if place >= 0]


def _partner(feature: Feature, student: Sequence[Feature], teacher: Sequence[Feature]) -> Feature | None:
    for alike in (_kind, lambda item: len(item.positions)):
        mine = [item for item in student if alike(item) == alike(feature)]
        theirs = [item for item in teacher if alike(item) == alike(feature)]
        if theirs:
            depth = (mine.index(feature) + 1) / len(mine)
            return theirs[max(round(depth * len(theirs)) - 1, 0)]
    return None
