"""Observers: what range of values a tensor takes, learned batch by batch in memory that never grows."""

from abc import ABC, abstractmethod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from compression.quantization.affine import Range

Array = NDArray[Any]
Ranges = Literal["minmax", "percentile"]


class NonFinite(ValueError):
    """A batch holds NaN or infinity; no range can be learned from it."""


class Observer(ABC):
    """Sees a tensor's batches one after another and answers with the range to quantize."""

    @abstractmethod
    def observe(self, batch: Array) -> None:
        """Take in one batch of any shape, empty ones included.

        Raises:
            NonFinite: the batch holds NaN or infinity.
        """

    @abstractmethod
    def range(self) -> Range:
        """The range learned so far; (0, 0) before the first value."""


class MinMax(Observer):
    """The smallest and the largest value seen."""

    def __init__(self) -> None:
        self.low = float("inf")
        self.high = float("-inf")

    def observe(self, batch: Array) -> None:
        if not batch.size:
            return
        low, high = float(batch.min()), float(batch.max())
        if not np.isfinite(low) or not np.isfinite(high):
            raise NonFinite
        self.low, self.high = min(self.low, low), max(self.high, high)

    def range(self) -> Range:
        return Range(low=self.low, high=self.high) if self.low <= self.high else Range(low=0.0, high=0.0)


class Histogram(MinMax):
    """Counts in equal bins over an interval that doubles, by merging pairs of bins, when a value falls
    outside.

    No count is ever lost or split, so that any quantile is right to within one bin of the final interval,
    however many batches went in. The smallest and the largest value are kept exactly.
    """

    def __init__(self, bins: int = 4096) -> None:
        super().__init__()
        if bins < 2 or bins % 2:
            raise ValueError(f"bins must be even and at least 2, not {bins}")
        self.counts = np.zeros(bins, np.int64)
        self.start = 0.0
        self.width = 0.0

    def observe(self, batch: Array) -> None:
        super().observe(batch)
        if not batch.size:
            return
        if self.width == 0:
            self._open()
        while self.low < self.start or self.high >= self.start + self.counts.size * self.width:
            self._double(downwards=self.low < self.start)
        self._count(batch.reshape(-1))

    def range(self) -> Range:
        return super().range()

    def quantile(self, share: float) -> float:
        """The value below which `share` (0..1) of all values lie, linear inside a bin."""
        total = int(self.counts.sum())
        if not total:
            return 0.0
        sums = np.cumsum(self.counts)
        wanted = share * total
        index = min(int(np.searchsorted(sums, wanted)), self.counts.size - 1)
        inside = int(self.counts[index])
        below = int(sums[index]) - inside
        part = (wanted - below) / inside if inside else 0.0
        return float(np.clip(self.start + (index + part) * self.width, self.low, self.high))

    def _open(self) -> None:
        span = max(self.high - self.low, abs(self.low) * 1e-3, abs(self.high) * 1e-3, 1e-30)
        self.start = self.low
        self.width = span * (1 + 1e-6) / self.counts.size

    def _double(self, *, downwards: bool) -> None:
        merged = self.counts[0::2] + self.counts[1::2]
        half = merged.size
        if downwards:
            self.start -= self.counts.size * self.width
        self.counts[:] = 0
        self.counts[half if downwards else 0 :][:half] = merged
        self.width *= 2

    def _count(self, flat: Array) -> None:
        last = self.counts.size - 1
        step = 1 << 20
        for begin in range(0, flat.size, step):
            piece = flat[begin : begin + step].astype(np.float64)
            piece -= self.start
            piece /= self.width
            bins = np.clip(piece, 0, last).astype(np.int64)
            self.counts += np.bincount(bins, minlength=self.counts.size)


class Percentile(Histogram):
    """The interval that holds `percentile` percent of all values, half of the rest cut off at either end."""

    def __init__(self, percentile: float = 99.99, bins: int = 4096) -> None:
        super().__init__(bins)
        self.tail = (100 - percentile) / 200

    def range(self) -> Range:
        return Range(low=self.quantile(self.tail), high=self.quantile(1 - self.tail))


def observer(ranges: Ranges, percentile: float) -> Observer:
    """A fresh observer of the named kind."""
    return MinMax() if ranges == "minmax" else Percentile(percentile)
