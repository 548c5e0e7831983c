"""How near the compressed model's outputs come to the original's: sums over batches, in bounded memory.

With x the original's output and y the compressed one's, over all entries that are finite in both:

    SQNR [dB] = 10 log10(sum x^2 / sum (x - y)^2)
    cosine    = sum x y / sqrt(sum x^2 sum y^2)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log10, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from compression.measurements import OutputFidelity

LIMIT_DB = 200.0
AGREEING_RANKS = (2, 3)
"""Ranks whose last axis holds classes: [N, C] and [N, positions, C]. Feature maps have no top answer."""

Outputs = Mapping[str, npt.NDArray[Any]]


class FidelityMeter:
    """Add batch after batch of both models' outputs, then read `result` and `incomparable`."""

    def __init__(self) -> None:
        self._sums: dict[str, _Sums] = {}
        self._incomparable: dict[str, str] = {}
        self._empty: set[str] = set()

    def add(self, original: Outputs, compressed: Outputs) -> None:
        for name, x in original.items():
            if name in self._incomparable:
                continue
            reason = _why_not(x, compressed.get(name))
            if reason:
                self._incomparable[name] = reason
                self._sums.pop(name, None)
            elif not x.size:
                self._empty.add(name)
            else:
                self._sums.setdefault(name, _Sums(integer=x.dtype.kind in "biu")).add(x, compressed[name])

    @property
    def result(self) -> dict[str, OutputFidelity]:
        return {name: sums.fidelity() for name, sums in self._sums.items()}

    @property
    def incomparable(self) -> dict[str, str]:
        """Outputs that cannot be compared, with the reason of each."""
        empty = self._empty - self._sums.keys() - self._incomparable.keys()
        return self._incomparable | dict.fromkeys(sorted(empty), "it held no entries on these inputs")


def sqnr_db(signal: float, noise: float) -> float | None:
    """10 log10(signal / noise) within +-200 dB; None without noise, -200 without any signal."""
    if noise == 0:
        return None
    if signal == 0:
        return -LIMIT_DB
    return min(max(10 * (log10(signal) - log10(noise)), -LIMIT_DB), LIMIT_DB)


def _why_not(x: npt.NDArray[Any], y: npt.NDArray[Any] | None) -> str | None:
    if y is None:
        return "the compressed model does not give it"
    if not isinstance(x, np.ndarray) or x.dtype.kind not in "biuf":
        return "it holds no numbers"
    if x.shape != y.shape:
        return f"its shape depends on values: {list(x.shape)} from the original, {list(y.shape)} compressed"
    return None


@dataclass
class _Sums:
    integer: bool
    signal: float = 0.0
    energy: float = 0.0
    noise: float = 0.0
    product: float = 0.0
    largest: float = 0.0
    rows: int = 0
    agreeing: int = 0
    exact: bool = True
    finite: bool = True
    newly_nonfinite: bool = False

    def add(self, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> None:
        equal = _equal(x, y)
        self.exact = self.exact and bool(equal.all())
        self._count(x, y, equal)
        wide_x, wide_y = x.astype(np.float64), y.astype(np.float64)
        finite_x, finite_y = np.isfinite(wide_x), np.isfinite(wide_y)
        self.newly_nonfinite = self.newly_nonfinite or bool((finite_x & ~finite_y).any())
        both = finite_x & finite_y
        if not both.all():
            self.finite = False
            wide_x, wide_y = wide_x[both], wide_y[both]
        if wide_x.size:
            self._accumulate(wide_x.ravel(), wide_y.ravel())

    def _accumulate(self, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> None:
        error = x - y
        self.signal += float(x @ x)
        self.energy += float(y @ y)
        self.product += float(x @ y)
        self.noise += float(error @ error)
        self.largest = max(self.largest, float(np.abs(error).max()))

    def _count(self, x: npt.NDArray[Any], y: npt.NDArray[Any], equal: npt.NDArray[np.bool_]) -> None:
        if self.integer:
            self.rows += equal.size
            self.agreeing += int(equal.sum())
        elif x.ndim in AGREEING_RANKS and x.shape[-1] >= 2:
            same = x.argmax(axis=-1) == y.argmax(axis=-1)
            self.rows += same.size
            self.agreeing += int(same.sum())

    def fidelity(self) -> OutputFidelity:
        return OutputFidelity(
            sqnr_db=None if self.integer else sqnr_db(self.signal, self.noise),
            cosine=None if self.integer else self._cosine(),
            max_abs_error=self.largest,
            agreement=self.agreeing / self.rows if self.rows else None,
            exact=self.exact,
            finite=self.finite,
            newly_nonfinite=self.newly_nonfinite,
        )

    def _cosine(self) -> float | None:
        if self.signal == 0 or self.energy == 0:
            return 1.0 if self.noise == 0 else None
        return min(max(self.product / (sqrt(self.signal) * sqrt(self.energy)), -1.0), 1.0)


def _equal(x: npt.NDArray[Any], y: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Entry by entry; NaN equals NaN."""
    return np.asarray((x == y) | ((x != x) & (y != y)))  # noqa: PLR0124
