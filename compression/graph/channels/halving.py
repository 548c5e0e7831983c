"""Takes products of factors apart: a factor in two, a segment in several axes."""

from collections.abc import Sequence

import numpy as np

from compression.graph.channels.labels import (
    Factor,
    Label,
    Rigid,
    Segment,
    factor_size,
    tidy,
)
from compression.graph.channels.sizes import ONE, Size
from compression.graph.channels.units import Units

APART_EVENLY = "the parts into which they are taken apart stay alike"


def deal(units: Units, segment: Segment, sizes: Sequence[Size]) -> list[Label] | None:
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
                first, second = halve(units, factor, missing, over)
                taken.append(first)
                waiting.insert(0, second)
                break
            else:
                return None
        result.append((tidy(taken),))
    return result if not tidy(waiting) else None


def halve(units: Units, factor: Factor, outer: Size, inner: Size) -> tuple[Factor, Factor]:
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
