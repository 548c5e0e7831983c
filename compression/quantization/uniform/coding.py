"""Evenly spaced values for a weight, one grid for the whole tensor: fixed point, and N levels.

A code c, unsigned, stands for c * scale + offset in float32, so that one form of storage serves both.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from compression.quantization.affine import Array, sqnr_db

MIN_BITS, MAX_BITS = 2, 16
Signs = Literal["kept", "offset"]
Rounding = Literal["floor", "nearest"]


@dataclass(frozen=True, kw_only=True)
class Coded:
    """A weight as codes. `values` are what the runtime makes of them."""

    codes: NDArray[np.uint16]
    bits: int
    """That hold every code."""
    scale: np.float32
    offset: np.float32
    saturated: int
    """Weights that lie outside the grid and were put on its edge."""
    sqnr_db: float
    words: str

    def values(self) -> NDArray[np.float32]:
        return decode(self.codes, self.scale, self.offset)


def decode(codes: NDArray[np.uint16], scale: np.float32, offset: np.float32) -> NDArray[np.float32]:
    """code * scale + offset in float32, each operation rounded, as the runtime does."""
    scaled = codes.astype(np.float32) * scale
    return np.asarray(scaled + offset, np.float32)


def fixed_point(weight: Array, bits: int, fraction_bits: int | None = None) -> Coded:
    """X = round(x * 2^b) in signed integers of `bits` bits, read back as X / 2^b; ties go to even.

    Integers outside -2^(bits-1)..2^(bits-1)-1 saturate. Without `fraction_bits` b is the largest at which none
    does, which may be below 0; with all weights 0 it is 0.
    """
    wide = weight.astype(np.float64)
    lowest, highest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    fraction = _largest_fraction(wide, highest) if fraction_bits is None else fraction_bits
    scaled = np.rint(np.ldexp(wide, fraction))
    integers = np.clip(scaled, lowest, highest)
    scale = np.ldexp(np.float32(1), -fraction)
    words = f"fixed point of {bits} bits, {fraction} of them behind the point"
    saturated = int(np.count_nonzero(scaled != integers))
    return _coded(
        weight,
        integers - lowest,
        bits=bits,
        scale=float(scale),
        offset=float(lowest * scale),
        saturated=saturated,
        words=words,
    )


def levels(weight: Array, count: int, signs: Signs = "kept", rounding: Rounding = "floor") -> Coded:
    """w' = floor(w / max(w) * N), read back as w' * max(w) / N.

    `kept`: |w| over max|w|, with the sign put back, so that zeros stay zeros and there are 2 N + 1 values.
    `offset`: (w - min(w)) over max(w) - min(w), N + 1 values from the lowest weight to the highest. `nearest`
    rounds (half to even) in place of the floor, which shifts every weight by up to a level.
    """
    wide = weight.astype(np.float64)
    low = 0.0 if signs == "kept" or not wide.size else float(wide.min())
    span = float(np.abs(wide).max() if signs == "kept" else wide.max() - low) if wide.size else 0.0
    step = span / count
    shares = (np.abs(wide) if signs == "kept" else wide - low) / (span or 1.0) * count
    integers = np.minimum(np.floor(shares) if rounding == "floor" else np.rint(shares), count)
    least, codes = 0, integers
    if signs == "kept":
        least, codes = -count, np.copysign(integers, wide) + count
    bits = max(int(count - least).bit_length(), MIN_BITS)
    scale = np.float32(step)
    offset = np.float32(low) if signs == "offset" else -(np.float32(count) * scale)
    words = f"{count} levels" + (" on either side of zero" if signs == "kept" else " from lowest to highest")
    return _coded(
        weight,
        codes,
        bits=bits,
        scale=float(scale),
        offset=float(offset),
        saturated=0,
        words=f"{words}, {rounding}",
    )


def _largest_fraction(wide: NDArray[np.float64], highest: int) -> int:
    """The largest b with round(max|x| * 2^b) <= highest, within what float32 scales by."""
    peak = float(np.abs(wide).max()) if wide.size else 0.0
    if peak == 0.0:
        return 0
    fraction = int(np.floor(np.log2(highest / peak))) + 1
    while np.rint(np.ldexp(peak, fraction)) > highest:
        fraction -= 1
    return min(fraction, 126)


def _coded(
    weight: Array,
    codes: NDArray[np.float64],
    *,
    bits: int,
    scale: float,
    offset: float,
    saturated: int,
    words: str,
) -> Coded:
    stored = codes.astype(np.uint16)
    factor, start = np.float32(scale), np.float32(offset)
    return Coded(
        codes=stored,
        bits=bits,
        scale=factor,
        offset=start,
        saturated=saturated,
        sqnr_db=sqnr_db(weight.astype(np.float32), decode(stored, factor, start)),
        words=words,
    )
