"""Running statistics of one tensor, in memory that does not grow with what is seen."""

import numpy as np
from numpy.typing import NDArray

from compression.quantization.ranges.distribution import Distribution

BINS = 4096
MEMORY = 100
"""Samples that a moving average holds: a plain mean so far, then each new one weighs a hundredth."""


class Statistics:
    """Extremes, their moving averages and a histogram over an interval that doubles, by merging pairs of bins,
    when a value falls outside.

    No count is ever lost or split, so that any quantile of what was counted is right to within one bin of the
    final interval. Samples are dealt out to `folds` in turn, each with counts of its own on common bins, so
    that ranges can be learned from some and judged on others.
    """

    def __init__(self, folds: int = 1, bins: int = BINS) -> None:
        if bins < 2 or bins % 2:
            raise ValueError(f"bins must be even and at least 2, not {bins}")
        self.counts = np.zeros((folds, bins))
        self.zeros = np.zeros(folds)
        self.lows = np.full(folds, np.inf)
        self.highs = np.full(folds, -np.inf)
        self.means = np.zeros((folds, 2))
        self.samples = np.zeros(folds, np.int64)
        self.start = 0.0
        self.width = 0.0

    def observe(
        self, low: float, high: float, values: NDArray[np.floating], weight: float = 1.0, fold: int = 0
    ) -> None:
        """Take in one sample.

        Args:
            low: the exact minimum of the sample, finite.
            high: its exact maximum, finite.
            values: 1-D, drawn from it, or all of it; may be empty where only extremes are wanted.
            weight: how many values of the sample each of these stands for.
            fold: which fold the sample belongs to.
        """
        self._extremes(low, high, fold)
        if not values.size:
            return
        if not self.width:
            self._open(low, high)
        bins = self.counts.shape[1]
        while low < self.start:
            self._double(downwards=True)
        while high >= self.start + bins * self.width:
            self._double(downwards=False)
        places = values.astype(np.float64)
        places -= self.start
        places *= 1 / self.width
        np.minimum(places, bins - 1, out=places)
        found = np.bincount(places.astype(np.intp), minlength=bins)
        self.counts[fold] += found if weight == 1 else found * weight
        if weight != 1:
            self._settle(low, values, weight, fold)
            self._settle(high, values, weight, fold)
        self.zeros[fold] += weight * (values.size - np.count_nonzero(values))

    def distribution(self, *, only: int | None = None, without: int | None = None) -> Distribution:
        """What was seen: everything, one fold, or all folds but one."""
        folds = np.arange(len(self.samples))
        chosen = folds[(folds == only if only is not None else folds != without) & (self.samples > 0)]
        shares = self.samples[chosen] / max(1, self.samples[chosen].sum())
        low, high = shares @ self.means[chosen]
        return Distribution(
            counts=self.counts[chosen].sum(axis=0),
            start=self.start,
            width=self.width,
            zeros=float(self.zeros[chosen].sum()),
            low=float(self.lows[chosen].min(initial=np.inf)),
            high=float(self.highs[chosen].max(initial=-np.inf)),
            mean_low=float(low),
            mean_high=float(high),
        )

    def _extremes(self, low: float, high: float, fold: int) -> None:
        self.lows[fold] = min(self.lows[fold], low)
        self.highs[fold] = max(self.highs[fold], high)
        self.samples[fold] += 1
        self.means[fold] += (np.array([low, high]) - self.means[fold]) / min(self.samples[fold], MEMORY)

    def _settle(self, extreme: float, values: NDArray[np.floating], weight: float, fold: int) -> None:
        """An extreme is known to be in the sample: it counts once, whether it was drawn or not.

        Drawn more than once, it is taken for a value that many share, and left as it is.
        """
        drawn = int(np.count_nonzero(values == extreme))
        if drawn <= 1:
            place = int((extreme - self.start) / self.width)
            self.counts[fold, min(place, self.counts.shape[1] - 1)] += 1 - drawn * weight

    def _open(self, low: float, high: float) -> None:
        """A span much narrower than the distance from 0 would leave no digits to tell its bins apart."""
        span = max(high - low, abs(low) * 1e-3, abs(high) * 1e-3, 1e-30)
        self.start = low
        self.width = span * (1 + 1e-6) / self.counts.shape[1]

    def _double(self, *, downwards: bool) -> None:
        merged = self.counts[:, 0::2] + self.counts[:, 1::2]
        bins, half = self.counts.shape[1], merged.shape[1]
        if downwards:
            self.start -= bins * self.width
        self.counts[:] = 0
        self.counts[:, half if downwards else 0 :][:, :half] = merged
        self.width *= 2
