"""Affine quantization of numpy arrays: parameters from ranges, rounding, and the error it makes.

A real number x is stored as an integer q with x ~ (q - zero_point) * scale (Jacob et al. 2018,
arXiv:1712.05877, equation 1). Rounding is half to even and saturates, as in ONNX QuantizeLinear, so that
numpy here and the runtime agree to the last bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

TINY = float(np.finfo(np.float32).tiny)
"""The smallest scale: below it float32 loses digits, and 1 / scale overflows."""
_CHUNK = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Affine:
    """Scale and zero point, per tensor (0-d) or along kept axes (same rank as the tensor, 1 on the
    others)."""

    scale: NDArray[np.float32]
    zero_point: Array
    """Integers of the stored type, in the shape of `scale`."""

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.zero_point.dtype


@dataclass(frozen=True, kw_only=True)
class Range:
    """The interval of values a tensor takes."""

    low: float
    high: float


def symmetric(
    tensor: Array, axes: Sequence[int] = (), *, bits: int = 8, floor: Array | float = 0.0
) -> Affine:
    """Parameters with zero point 0 and scale = max|w| / (2^(bits - 1) - 1), one for each index of the kept
    `axes`.

    The lowest integer stays unused, so that -x and x are stored alike. A channel of zeros gets scale 1. No
    scale goes below `floor`, which broadcasts to the scales.
    """
    reduced = tuple(axis for axis in range(tensor.ndim) if axis not in axes)
    if tensor.size:
        high = np.maximum(tensor.max(axis=reduced, keepdims=bool(axes)), 0).astype(np.float64)
        low = np.minimum(tensor.min(axis=reduced, keepdims=bool(axes)), 0).astype(np.float64)
        peak = np.maximum(high, -low)
    else:
        peak = np.zeros(
            [tensor.shape[axis] if axis in axes else 1 for axis in range(tensor.ndim)] if axes else ()
        )
    least = np.maximum(floor, TINY)
    scale = np.where(peak > 0, np.maximum(peak / (2 ** (bits - 1) - 1), least), np.maximum(floor, 1.0))
    dtype = np.int8 if bits <= 8 else np.int16
    return Affine(scale=scale.astype(np.float32), zero_point=np.zeros(scale.shape, dtype))


def from_range(bounds: Range, dtype: type[np.integer[Any]], *, centred: bool = False) -> Affine:
    """Parameters of one tensor whose values lie in `bounds`, which are widened to hold zero exactly.

    `centred` puts the zero point into the middle of the type, as signed kernels want it.
    """
    info = np.iinfo(dtype)
    low, high = min(float(bounds.low), 0.0), max(float(bounds.high), 0.0)
    middle = (int(info.max) + int(info.min) + 1) // 2
    if centred:
        high = max(-low, high)
        low = -high
    lowest = int(info.min) + (1 if centred else 0)
    if high == low:
        return Affine(scale=np.array(1.0, np.float32), zero_point=np.array(middle if centred else 0, dtype))
    scale = np.float32(max((high - low) / (int(info.max) - lowest), TINY))
    zero = middle if centred else round(lowest - low / float(scale))
    return Affine(
        scale=np.array(scale, np.float32), zero_point=np.array(min(max(zero, lowest), int(info.max)), dtype)
    )


def quantize(tensor: Array, parameters: Affine) -> Array:
    """saturate(round_half_to_even(x / scale) + zero_point) in the stored type."""
    info = np.iinfo(parameters.dtype)
    scaled = np.asarray(np.divide(tensor, parameters.scale, dtype=np.float32))
    np.rint(scaled, out=scaled)
    scaled += parameters.zero_point.astype(np.float32)
    np.clip(scaled, info.min, info.max, out=scaled)
    return scaled.astype(parameters.dtype)


def dequantize(integers: Array, parameters: Affine) -> NDArray[np.float32]:
    """(q - zero_point) * scale in float32."""
    centred = np.array(integers, np.float32)
    centred -= parameters.zero_point.astype(np.float32)
    centred *= parameters.scale
    return centred


def sqnr_db(reference: Array, other: Array) -> float:
    """10 log10(sum(x^2) / sum((x - y)^2)); infinite where both are equal, -infinite where x is all zeros.

    Summed in float64 piece by piece, so that a large tensor costs no second copy.
    """
    signal, noise = energy(reference, other)
    return ratio_db(signal, noise)


def energy(reference: Array, other: Array) -> tuple[float, float]:
    """sum(x^2) and sum((x - y)^2), which add up over batches where decibels do not."""
    left, right = reference.reshape(-1), other.reshape(-1)
    signal = noise = 0.0
    for start in range(0, left.size, _CHUNK):
        x = left[start : start + _CHUNK].astype(np.float64)
        signal += float(x @ x)
        x -= right[start : start + _CHUNK]
        noise += float(x @ x)
    return signal, noise


def ratio_db(signal: float, noise: float) -> float:
    if noise == 0:
        return float("inf")
    return 10 * float(np.log10(signal / noise)) if signal > 0 else float("-inf")
