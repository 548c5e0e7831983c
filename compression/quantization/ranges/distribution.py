"""What is known of a tensor's values once calibration is over, in the form that range rules read."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """A histogram of equal bins with the exact extremes of what went in."""

    counts: Floats
    """(B,) weights; fractions come from values that stand for several."""
    start: float
    """The lower edge of the first bin."""
    width: float
    """Of a bin; 0 while nothing was seen."""
    zeros: float
    """How much of the counts is values of exactly 0."""
    low: float
    high: float
    mean_low: float
    """The moving average of the extremes of single samples."""
    mean_high: float

    @property
    def empty(self) -> bool:
        return self.low > self.high

    @property
    def total(self) -> float:
        return float(self.counts.sum())

    def quantile(self, share: float) -> float:
        """The value below which `share` (0..1) of all values lie, linear inside a bin."""
        total = self.total
        if not total:
            return 0.0
        sums = np.cumsum(self.counts)
        wanted = share * total
        index = min(int(np.searchsorted(sums, wanted)), self.counts.size - 1)
        inside = float(self.counts[index])
        part = (wanted - (float(sums[index]) - inside)) / inside if inside else 0.0
        return float(np.clip(self.start + (index + part) * self.width, self.low, self.high))

    def aligned(self, bins: int) -> "Bins":
        """About `bins` bins over the range widened to hold 0, where an edge lies.

        Values of exactly 0 are left out: every quantizer stores them without error. A count that falls into
        several of the new bins is split in proportion.
        """
        low, high = min(self.low, 0.0), max(self.high, 0.0)
        width = (high - low) / bins
        if self.empty or not width:
            return Bins(counts=np.zeros(1), width=0.0, zero=0)
        below, above = int(np.ceil(-low / width - 1e-9)), int(np.ceil(high / width - 1e-9))
        old = self.start + self.width * np.arange(self.counts.size + 1)
        sums = np.concatenate(([0.0], np.cumsum(self._without_zeros())))
        parts = np.interp(width * np.arange(-below, above + 1), old, sums)
        parts[0], parts[-1] = 0.0, sums[-1]
        return Bins(counts=np.maximum(np.diff(parts), 0.0), width=width, zero=below)

    def _without_zeros(self) -> Floats:
        """Where 0 is an edge, rounding may have put it on either side."""
        counts, left = self.counts.copy(), self.zeros
        place = int(-self.start / self.width)
        for index in (place, place - 1, place + 1):
            if left and 0 <= index < counts.size:
                taken = min(left, counts[index])
                counts[index] -= taken
                left -= taken
        return counts


@dataclass(frozen=True, kw_only=True)
class Bins:
    """Counts between the edges (i - zero) * width, i = 0..len(counts), so that 0 is an edge."""

    counts: Floats
    width: float
    zero: int

    @property
    def edges(self) -> Floats:
        return np.asarray(self.width * (np.arange(self.counts.size + 1, dtype=np.float64) - self.zero))

    def magnitudes(self) -> "Bins":
        """The bins of |x|."""
        size = max(self.zero, self.counts.size - self.zero)
        folded = np.zeros(size)
        folded[: self.counts.size - self.zero] += self.counts[self.zero :]
        folded[: self.zero] += self.counts[: self.zero][::-1]
        return Bins(counts=folded, width=self.width, zero=0)
