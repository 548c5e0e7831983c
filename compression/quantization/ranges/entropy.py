"""The range that loses least information: Kullback-Leibler divergence between values and quantized values.

Migacz 2017, 8-bit Inference with TensorRT (GTC), slides 34-39, for magnitudes and, in the same way, for ranges
with two ends.
"""

import numpy as np

from compression.quantization.ranges.distribution import Bins, Floats
from compression.quantization.ranges.search import Edges, best_ends

_POINTS = 65


def entropy_ends(bins: Bins, levels: int) -> tuple[int, int]:
    """The edges (first, last) of the range with the least divergence over `levels` levels."""
    divergence = Divergence(bins.counts, levels)
    return best_ends(divergence, bins.counts.size, bins.zero, least=levels, points=_POINTS)


class Divergence:
    """KL(P || Q) in nats for many ranges at once.

    P is the histogram inside the range, what lies outside added to its end bins. Q is the histogram inside,
    without what lies outside, cut into `levels` groups of neighbouring bins, each group's mean given to its
    bins that are not empty. Where an end bin is empty but something lies beyond it, the divergence is infinite.

    A group of n filled bins with sum G contributes G log(G / n) to sum(P log Q), and all sums come from running
    totals, so that a range costs no more than its levels.
    """

    def __init__(self, counts: Floats, levels: int) -> None:
        self.levels = levels
        self.counts = counts
        self.total = float(counts.sum())
        self.sums = _running(counts)
        self.filled = _running((counts > 0).astype(np.float64))
        self.own = _running(_times_log(counts))

    def __call__(self, firsts: Edges, lasts: Edges) -> Floats:
        """The divergence of each range of bins first..last - 1."""
        if not self.total:
            return np.zeros(firsts.size)
        sizes = (lasts - firsts)[:, None]
        cuts = firsts[:, None] + np.arange(self.levels + 1) * sizes // self.levels
        group = np.diff(self.sums[cuts], axis=1)
        filled = np.diff(self.filled[cuts], axis=1)
        means = np.divide(group, filled, out=np.zeros_like(group), where=filled > 0)
        cross = _times_log(group, means).sum(axis=1)
        own = self.own[lasts] - self.own[firsts]
        inside = self.sums[lasts] - self.sums[firsts]
        below, above = self.sums[firsts], self.total - self.sums[lasts]
        for outside, end, level in ((below, firsts, 0), (above, lasts - 1, -1)):
            bin_count = self.counts[end]
            own += _times_log(bin_count + outside) - _times_log(bin_count)
            mean = np.where(bin_count > 0, means[:, level], 0.0)
            with np.errstate(divide="ignore", invalid="ignore"):
                cross += np.where(outside > _rounding(self.total), outside * np.log(mean), 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            found = (own - cross) / self.total + np.log(inside / self.total)
        return np.where(inside > 0, found, np.inf)


def _rounding(total: float) -> float:
    """What running totals may be off by."""
    return total * 1e-12


def _running(values: Floats) -> Floats:
    return np.concatenate(([0.0], np.cumsum(values)))


def _times_log(factor: Floats, values: Floats | None = None) -> Floats:
    """factor * log(values), 0 where the factor is 0; of `factor` itself by default."""
    values = factor if values is None else values
    logs = np.log(values, out=np.zeros_like(values), where=values > 0)
    return np.asarray(factor * logs)
