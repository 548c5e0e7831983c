"""Second moments of a layer's inputs, gathered batch by batch: what its outputs' error is told from."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from compression.quantization.rounding.blocks import Doubles

ASIDE = 4
"""Every so many batches (or rows, where there are few batches) one is kept aside to judge by."""
_ROWS = 8192


@dataclass(kw_only=True)
class Moments:
    """X^T X over rows to fit to, and over rows kept aside; memory of two K x K matrices, however many rows."""

    width: int
    fit: Doubles = field(init=False)
    judge: Doubles = field(init=False)
    magnitudes: Doubles = field(init=False)
    """Sum of |x| over the rows to fit to."""
    fit_rows: int = 0
    judge_rows: int = 0
    spoilt: bool = False
    """An input was NaN or infinite: nothing can be told from these."""

    def __post_init__(self) -> None:
        self.fit = np.zeros((self.width, self.width))
        self.judge = np.zeros((self.width, self.width))
        self.magnitudes = np.zeros(self.width)

    def add(self, rows: NDArray[np.floating], *, aside: bool) -> None:
        """Take in rows (count, K)."""
        for start in range(0, len(rows), _ROWS):
            part = np.ascontiguousarray(rows[start : start + _ROWS], np.float32)
            product = part.T @ part
            if not np.isfinite(product).all():
                self.spoilt = True
                return
            if aside:
                self.judge += product
                self.judge_rows += len(part)
            else:
                self.fit += product
                self.magnitudes += np.abs(part).sum(axis=0, dtype=np.float64)
                self.fit_rows += len(part)

    def split(self, rows: NDArray[np.floating]) -> None:
        """Take in rows of which every fourth, counted over all batches, is kept aside: for data of a few batches."""
        start = self.fit_rows + self.judge_rows
        mask = np.arange(start, start + len(rows)) % ASIDE == ASIDE - 1
        self.add(rows[~mask], aside=False)
        self.add(rows[mask], aside=True)

    @property
    def usable(self) -> bool:
        return not self.spoilt and self.fit_rows > 0 and self.judge_rows > 0 and bool(self.fit.any())


def moments_bytes(width: int) -> int:
    return 16 * width * width
