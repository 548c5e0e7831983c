"""The multiple-choice knapsack: one choice for each item, so that none is both cheaper and less noisy in sum.

min sum_i cost[i, c_i] subject to sum_i noise[i, c_i] <= bound, the integer program of Hubara et al. 2021
(arXiv:2006.10518) and of HAWQ-V3 (arXiv:2011.10680), solved for all bounds at once: the list of undominated sums of
Nemhauser and Ullmann 1969 (Discrete dynamic programming and capital allocation), item after item, which is exact. A
list that grows beyond a limit is thinned along the logarithm of its noise, and `Front.exact` is then False.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Places = NDArray[np.int64]
LIMIT = 1 << 13


@dataclass(frozen=True, kw_only=True)
class Option:
    """One choice for an item."""

    cost: float
    noise: float


@dataclass(frozen=True, kw_only=True)
class Front:
    """The undominated assignments: cost rises, noise falls."""

    cost: Doubles
    noise: Doubles
    exact: bool
    _steps: tuple[tuple[Places, Places], ...]
    """For each item, of every point the option taken and the point before it."""

    def __len__(self) -> int:
        return len(self.cost)

    def choices(self, point: int) -> tuple[int, ...]:
        """The option of each item, by its number, at a point."""
        found: list[int] = []
        for taken, before in reversed(self._steps):
            found.append(int(taken[point]))
            point = int(before[point])
        return tuple(reversed(found))

    def cheapest(self, noise: float) -> int | None:
        """The cheapest point with no more noise; None where there is none."""
        fitting = np.flatnonzero(self.noise <= noise)
        return int(fitting[0]) if fitting.size else None

    def truest(self, cost: float) -> int | None:
        """The point of least noise that costs no more; None where there is none."""
        fitting = np.flatnonzero(self.cost <= cost)
        return int(fitting[-1]) if fitting.size else None


def undominated(items: Sequence[Sequence[Option]], *, limit: int = LIMIT) -> Front:
    """All undominated assignments of one option to each item.

    Args:
        items: the options of each item, at least one each; noise is not negative.
        limit: points kept after each item, at most.
    """
    cost, noise, exact = np.zeros(1), np.zeros(1), True
    steps: list[tuple[Places, Places]] = []
    for options in items:
        added = np.array([option.cost for option in options])
        blurred = np.array([option.noise for option in options])
        sums = (cost[:, None] + added).reshape(-1)
        noises = (noise[:, None] + blurred).reshape(-1)
        kept = _undominated(sums, noises)
        if len(kept) > limit:
            kept, exact = _thinned(kept, noises, limit), False
        cost, noise = sums[kept], noises[kept]
        steps.append((kept % len(options), kept // len(options)))
    return Front(cost=cost, noise=noise, exact=exact, _steps=tuple(steps))


def _undominated(cost: Doubles, noise: Doubles) -> Places:
    """Places of points such that no other is at most as dear and at most as noisy; of equals the first."""
    order = np.lexsort((noise, cost))
    least = np.minimum.accumulate(noise[order])
    better = np.ones(len(order), bool)
    better[1:] = noise[order][1:] < least[:-1]
    return order[better]


def _thinned(kept: Places, noise: Doubles, limit: int) -> Places:
    """At most `limit` of them: the cheapest of each step of the noise's logarithm, and the two ends."""
    depth = np.log(np.maximum(noise[kept], 1e-30))
    span = max(float(depth[0] - depth[-1]), 1e-12)
    steps = np.floor((depth[0] - depth) / span * (limit - 2)).astype(np.int64)
    first = np.ones(len(kept), bool)
    first[1:] = steps[1:] != steps[:-1]
    first[-1] = True
    return kept[first]
