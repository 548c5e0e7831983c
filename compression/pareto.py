"""The Pareto front of points where less is better in every coordinate."""

from collections.abc import Hashable, Sequence

Point = tuple[float, ...]


def pareto_front(points: Sequence[Point], groups: Sequence[Hashable]) -> list[bool]:
    """Which points no other point of the same group dominates; equal points do not dominate each other."""
    paired = list(zip(points, groups, strict=True))
    return [
        not any(dominates(rival, point) for rival, rival_group in paired if rival_group == group)
        for point, group in paired
    ]


def dominates(one: Point, other: Point) -> bool:
    """At least as good everywhere, and better somewhere."""
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
