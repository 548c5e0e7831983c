"""Weights on uniform grids, as coarse as a bound on their error allows: fewer levels take fewer bits.

At a given noise, a uniform grid with a wider zone around zero is nearly the best scalar quantizer once its levels are
entropy coded (Sullivan 1996, Efficient scalar quantization of exponential and Laplacian random variables).
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
MOST_LEVELS = 1 << 15
ZONES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25)
"""How much more than half a step lies on either side of zero and every level, towards zero, in steps."""
_SAMPLE = 1 << 20
_HALVINGS = 30
_SHRINK = 0.98
_TRIES = 20


@dataclass(frozen=True, kw_only=True)
class Bound:
    """What the rounded weights of each tensor are held to: one of the two."""

    kind: Literal["max_error", "min_sqnr_db"]
    value: float

    def holds(self, weights: Array, rounded: Array) -> bool:
        if self.kind == "max_error":
            return max_error(weights, rounded) <= self.value
        return sqnr_db(weights, rounded) >= self.value


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Multiples of a step; a weight goes to floor(|w| / step + 1/2 - zone) steps, with its sign."""

    step: np.float32
    zone: float

    def levels(self, weights: Array) -> Array:
        wide = weights.astype(np.float64)
        return np.sign(wide) * np.floor(np.abs(wide) / np.float64(self.step) + 0.5 - self.zone)

    def rounded(self, weights: Array) -> Array:
        """In the weights' type; in float32 each value is its level times the step, rounded once."""
        # Adding zero makes a negative zero positive.
        values = self.levels(weights).astype(np.float32) * self.step + np.float32(0)
        return np.asarray(values.astype(weights.dtype))

    def bits(self, weights: Array) -> float:
        """Entropy of the levels, per weight."""
        _, counts = np.unique(self.levels(weights), return_counts=True)
        return float(-(counts * np.log2(counts / weights.size)).sum() / weights.size)


def coarsest(weights: Array, bound: Bound) -> Grid | None:
    """The grid of the fewest bits under the bound; None where it would need 2^15 levels, or weights have no room."""
    flat = weights.reshape(-1)
    sample = flat[:: max(flat.size // _SAMPLE, 1)]
    if not np.any(flat):
        return None
    if bound.kind == "max_error":
        return _held(flat, bound, Grid(step=np.float32(2 * bound.value), zone=0.0))
    found = [Grid(step=_step(sample, bound, zone), zone=zone) for zone in ZONES]
    return _held(flat, bound, min(found, key=lambda grid: grid.bits(sample)))


def _held(weights: Array, bound: Bound, grid: Grid) -> Grid | None:
    """The grid itself, or finer by as much as the sample or rounding to the type had missed."""
    largest = float(np.abs(weights.astype(np.float64)).max())
    for _ in range(_TRIES):
        if not float(grid.step) > largest / MOST_LEVELS:
            return None
        if bound.holds(weights, grid.rounded(weights)):
            return grid
        grid = Grid(step=np.float32(grid.step * _SHRINK), zone=grid.zone)
    return None


def _step(weights: Array, bound: Bound, zone: float) -> np.float32:
    """The largest step that holds, by halving its logarithm's range."""
    high = 2 * float(np.abs(weights.astype(np.float64)).max()) or 1.0
    low = high / (4 * MOST_LEVELS)
    for _ in range(_HALVINGS):
        middle = float(np.sqrt(low * high))
        grid = Grid(step=np.float32(middle), zone=zone)
        if bound.holds(weights, grid.rounded(weights)):
            low = middle
        else:
            high = middle
    return np.float32(low)


def max_error(weights: Array, rounded: Array) -> float:
    return float(np.abs(weights.astype(np.float64) - rounded.astype(np.float64)).max(initial=0.0))


def sqnr_db(weights: Array, rounded: Array) -> float:
    """10 log10(sum w^2 / sum (w - w')^2); infinite where nothing changed."""
    wide = weights.astype(np.float64)
    noise = float(np.square(wide - rounded.astype(np.float64)).sum())
    power = float(np.square(wide).sum())
    return float("inf") if noise == 0 else 10 * float(np.log10(power / noise)) if power else float("-inf")
