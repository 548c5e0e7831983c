"""Finds where to clip: the two ends of a range over the edges of a histogram."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from compression.quantization.ranges.distribution import Floats

Edges = NDArray[np.int64]
Cost = Callable[[Edges, Edges], Floats]
"""Costs of candidate ranges, given the numbers of their first and last edges."""
_ROUNDS = 3


def best_ends(cost: Cost, bins: int, zero: int, *, least: int, points: int) -> tuple[int, int]:
    """The edges (first, last) of the cheapest range with first <= zero <= last and at least `least` bins.

    Both ends move inwards together, then one after the other until neither moves, at most three rounds. Each
    time `points` places are tried first, then ever finer ones around the best; of equally good ranges the
    widest is taken.
    """
    least = min(least, bins)

    def together(steps: Edges) -> tuple[Edges, Edges]:
        return zero * steps // bins, bins - (bins - zero) * steps // bins

    step = _narrow(lambda steps: cost(*together(steps)), 0, bins - least, points)
    first, last = (int(end[0]) for end in together(np.array([step])))
    for _ in range(_ROUNDS):
        before = first
        last = bins - _narrow(
            lambda steps, s=first: cost(np.full_like(steps, s), bins - steps),  # type: ignore[misc]
            0,
            bins - max(zero, first + least),
            points,
        )
        first = _narrow(
            lambda steps, e=last: cost(steps, np.full_like(steps, e)),  # type: ignore[misc]
            0,
            min(zero, last - least),
            points,
        )
        if first == before:
            break
    return first, last


def _narrow(cost: Callable[[Edges], Floats], low: int, high: int, points: int) -> int:
    """The cheapest of the integers low..high that are tried, the lowest of equals."""
    while True:
        places = np.unique(np.linspace(low, high, points).astype(np.int64))
        index = int(np.argmin(cost(places)))
        if places.size == high - low + 1:
            return int(places[index])
        low, high = int(places[max(index - 1, 0)]), int(places[min(index + 1, places.size - 1)])
