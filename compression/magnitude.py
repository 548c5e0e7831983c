"""Exact selection of the smallest weights over many tensors, in memory that does not grow with them.

A magnitude's bit pattern, read as an unsigned integer, is ordered as the magnitude is. The k-th smallest
is found 16 bits at a time: each pass counts one histogram of 65,536 bins over all tensors and narrows
down to one bin.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

DIGIT_BITS = 16

Reader = Callable[[], Iterable[np.ndarray]]
"""Gives a tensor's values in flat pieces; called once per pass, so that nothing has to be kept."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Everything below `key` is chosen, and of each tensor's elements equal to it the first `ties`."""

    key: int
    wide: bool
    ties: tuple[int, ...]

    @property
    def threshold(self) -> float:
        """The magnitude at which the cut falls."""
        bits = np.array([self.key], np.uint64 if self.wide else np.uint32)
        return float(bits.view(np.float64 if self.wide else np.float32)[0])

    def mask(self, values: np.ndarray, tensor: int) -> np.ndarray:
        """True where an element of tensor number `tensor` is chosen, in the shape of `values`."""
        keys = magnitude_keys(values.reshape(-1), self.wide)
        chosen = keys < self.key
        chosen[np.flatnonzero(keys == self.key)[: self.ties[tensor]]] = True
        return chosen.reshape(values.shape)


def smallest(readers: Sequence[Reader], count: int, *, wide: bool) -> Cut:
    """The cut that chooses exactly `count` elements of the tensors together, the smallest in magnitude.

    Among equal magnitudes the earlier tensor wins, then the earlier element (row-major): the choice is
    the same on every run. Zeros are the smallest, so those that are there already count; NaN is the
    largest.

    Args:
        readers: one per tensor, float16, bfloat16, float32 or float64.
        count: between 0 and the number of elements.
        wide: whether a tensor is float64; the others are then compared as float64 as well.
    """
    if count <= 0:
        return Cut(key=0, wide=wide, ties=(0,) * len(readers))
    prefix, left = 0, count
    for shift in range((64 if wide else 32) - DIGIT_BITS, -1, -DIGIT_BITS):
        histogram = _histogram(readers, wide, prefix, shift)
        cumulated = np.cumsum(histogram)
        digit = int(np.searchsorted(cumulated, left))
        left -= int(cumulated[digit - 1]) if digit else 0
        prefix = (prefix << DIGIT_BITS) | digit
    return Cut(key=prefix, wide=wide, ties=_share(readers, wide, prefix, left))


def magnitude_keys(values: np.ndarray, wide: bool) -> np.ndarray:
    """Unsigned integers in the order of abs(values); every narrower float is exact in the wider one."""
    if wide:
        return values.astype(np.float64).view(np.uint64) & np.uint64(2**63 - 1)
    return values.astype(np.float32).view(np.uint32) & np.uint32(2**31 - 1)


def _histogram(readers: Sequence[Reader], wide: bool, prefix: int, shift: int) -> np.ndarray:
    """How many keys begin with `prefix`, by their next digit."""
    total = np.zeros(1 << DIGIT_BITS, np.int64)
    bits = 64 if wide else 32
    for reader in readers:
        for piece in reader():
            keys = magnitude_keys(piece, wide)
            if shift + DIGIT_BITS < bits:
                keys = keys[(keys >> (shift + DIGIT_BITS)) == prefix]
            digits = (keys >> shift) & ((1 << DIGIT_BITS) - 1)
            total += np.bincount(digits.astype(np.int64), minlength=1 << DIGIT_BITS)
    return total


def _share(readers: Sequence[Reader], wide: bool, key: int, left: int) -> tuple[int, ...]:
    """How many of the equal elements fall to each tensor, first come first served."""
    ties = []
    for reader in readers:
        equal = sum(int(np.count_nonzero(magnitude_keys(piece, wide) == key)) for piece in reader())
        ties.append(min(equal, left))
        left -= ties[-1]
    return tuple(ties)
