"""Ranks for all layers out of one budget: what loses least energy for each multiplication saved is cut first."""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from compression.lowrank.choosing import frontier
from compression.lowrank.factors import Form, Option, Problem
from compression.lowrank.forms import build, options

_RUNGS = 12
"""Options of a form that a layer offers, about."""


@dataclass(frozen=True, kw_only=True)
class Allotment:
    """The option of each layer; those left out stay whole."""

    options: Mapping[str, Option]
    macs: int
    """Of all layers that were in the choice."""


def ladder(problem: Problem, forms: Sequence[Form]) -> list[Option]:
    """Options from the fewest multiplications to the most, each with the error that its chain has."""
    found = [
        item if item.is_exact else replace(item, error=build(problem, item).error, is_exact=True)
        for form in forms
        for item in _thinned(frontier(options(problem, form)))
    ]
    return frontier(found)


def allot(
    ladders: Mapping[str, Sequence[Option]],
    macs: Mapping[str, int],
    limit: float,
    importance: Mapping[str, float],
) -> Allotment:
    """Go down the lower convex hull of each layer's errors, always where a saved multiplication costs least.

    Steps are coarse, so that the last one leaves some of the limit: it goes back, best first, to any options it is
    enough for.

    Args:
        ladders: options by layer, with errors.
        macs: of the layers as they are.
        limit: multiplications that all of them together may have left.
        importance: what a layer's error, as a share of its energy, does to the model.

    Returns:
        As near below the limit as possible; above it where even all last steps do not reach it.
    """
    hulls = {name: _hull(macs[name], ladders[name]) for name in ladders}
    place = dict.fromkeys(hulls, 0)
    left = sum(macs.values())
    waiting = [
        (_price(hulls[name], 0) * importance[name], name) for name in sorted(hulls) if len(hulls[name]) > 1
    ]
    heapq.heapify(waiting)
    while left > limit and waiting:
        _, name = heapq.heappop(waiting)
        hull = hulls[name]
        left -= hull[place[name]][0] - hull[place[name] + 1][0]
        place[name] += 1
        if place[name] + 1 < len(hull):
            heapq.heappush(waiting, (_price(hull, place[name]) * importance[name], name))
    chosen = {name: hull[place[name]] for name, hull in hulls.items()}
    left = _given_back(
        chosen, {name: _points(macs[name], ladders[name]) for name in ladders}, limit, importance
    )
    options = {name: item for name, (_, _, item) in chosen.items() if item is not None}
    return Allotment(options=options, macs=left)


def _given_back(
    chosen: dict[str, "Point"],
    points: Mapping[str, Sequence["Point"]],
    limit: float,
    importance: Mapping[str, float],
) -> int:
    """Change `chosen` for what errs less while the limit allows it; returns the multiplications in the end."""
    while True:
        left = sum(macs for macs, _, _ in chosen.values())
        gains = [
            (importance[name] * (chosen[name][1] - point[1]), name, point)
            for name in sorted(points)
            for point in points[name]
            if point[1] < chosen[name][1] and chosen[name][0] < point[0] <= chosen[name][0] + limit - left
        ]
        if not gains:
            return left
        _, name, point = max(gains, key=lambda item: item[0])
        chosen[name] = point


Point = tuple[int, float, Option | None]


def _hull(whole: int, found: Sequence[Option]) -> list[Point]:
    """From the layer as it is to its least option, errors rising ever steeper."""
    points: list[Point] = []
    for point in _points(whole, found):
        while len(points) > 1 and _slope(points[-2], point) <= _slope(points[-2], points[-1]):
            points.pop()
        points.append(point)
    return points


def _points(whole: int, found: Sequence[Option]) -> list[Point]:
    """From the layer as it is to its least option."""
    options = sorted(found, key=lambda item: -item.macs)
    return [(whole, 0.0, None), *((item.macs, item.error or 0.0, item) for item in options)]


def _slope(first: Point, second: Point) -> float:
    return (second[1] - first[1]) / max(first[0] - second[0], 1)


def _price(hull: Sequence[Point], place: int) -> float:
    return _slope(hull[place], hull[place + 1])


def _thinned(found: list[Option]) -> list[Option]:
    """About `_RUNGS` of a frontier, evenly by the logarithm of their multiplications; exact ones all."""
    if len(found) <= _RUNGS or found[0].is_exact:
        return found
    sizes = np.log([item.macs for item in found])
    wanted = np.linspace(sizes[0], sizes[-1], _RUNGS)
    return [found[place] for place in sorted({int(np.argmin(np.abs(sizes - size))) for size in wanted})]
