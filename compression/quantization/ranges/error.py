"""The mean squared error that an integer type makes on a distribution, and the range that makes least of it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from compression.quantization.affine import TINY, Range
from compression.quantization.ranges.distribution import Bins, Floats
from compression.quantization.ranges.search import Edges, best_ends

_POINTS = 17


@dataclass(frozen=True, kw_only=True)
class Integers:
    """The stored type of a tensor, as `affine.from_range` takes it."""

    dtype: type[np.integer[Any]]
    centred: bool = False
    """Whether the zero point is in the middle and the lowest integer of a signed type is unused."""

    @property
    def lowest(self) -> int:
        return int(np.iinfo(self.dtype).min) + (1 if self.centred else 0)

    @property
    def highest(self) -> int:
        return int(np.iinfo(self.dtype).max)

    @property
    def levels(self) -> int:
        """Of the whole range; of magnitudes where the range is centred."""
        span = self.highest - self.lowest + 1
        return span // 2 + 1 if self.centred else span


def least_error_ends(bins: Bins, integers: Integers) -> tuple[int, int]:
    """The edges (first, last) of the range with the least squared error."""
    edges = bins.edges

    def cost(firsts: Edges, lasts: Edges) -> Floats:
        return squared_error(bins, edges[firsts], edges[lasts], integers)

    return best_ends(cost, bins.counts.size, bins.zero, least=1, points=_POINTS)


def squared_error(bins: Bins, lows: Floats, highs: Floats, integers: Integers) -> Floats:
    """The sum of (x - dequantize(quantize(x)))^2 for each range (C,), values spread evenly inside a bin.

    With step s and the integer n = clip(round(x / s)) beside the zero point, the error has the antiderivative
    n s^3 / 12 + (x - n s)^3 / 3, also where clipping sets in, so that the sum over a bin is exact however many
    steps it holds.
    """
    if not bins.width:
        return np.zeros(len(lows))
    scales, zeros = _parameters(lows, highs, integers)
    edges = bins.edges[None, :]
    near = np.rint(edges / scales)
    np.clip(near, integers.lowest - zeros, integers.highest - zeros, out=near)
    rest = edges - near * scales
    primitive = near * (scales**3 / 12) + rest * rest * rest / 3
    return np.asarray(np.diff(primitive, axis=1) @ bins.counts / bins.width)


def range_error(bins: Bins, bounds: Range, integers: Integers) -> float:
    """The sum of squared errors with this range."""
    return float(squared_error(bins, np.array([bounds.low]), np.array([bounds.high]), integers)[0])


def _parameters(lows: Floats, highs: Floats, integers: Integers) -> tuple[Floats, Floats]:
    """Scales and zero points (C, 1), as `affine.from_range` makes them."""
    lows, highs = np.minimum(lows, 0.0)[:, None], np.maximum(highs, 0.0)[:, None]
    if integers.centred:
        highs = np.maximum(highs, -lows)
        lows = -highs
    scales = np.maximum((highs - lows) / (integers.highest - integers.lowest), TINY)
    zeros = np.clip(np.rint(integers.lowest - lows / scales), integers.lowest, integers.highest)
    if integers.centred:
        zeros[:] = (integers.highest + integers.lowest) // 2
    return scales, zeros
