"""Where a resized axis is read, and with which weights, as ONNX's Resize defines it.

Coordinates are computed in float32 as in onnxruntime, so that what is rounded falls the same way.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compression.errors import NotTrainable

Floats = NDArray[np.float32]
Places = NDArray[np.int64]

HALF_PIXELS = frozenset({"half_pixel", "pytorch_half_pixel", "half_pixel_symmetric"})


@dataclass(frozen=True, kw_only=True)
class Interpolation:
    """The settings that hold for all axes; names are those of the operator's attributes."""

    mode: str
    coordinates: str
    rounding: str
    cubic_a: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False
    extrapolation: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """What becomes of one axis: `size` entries become `count`; `start` and `end` are its region of interest."""

    size: int
    count: int
    factor: float
    start: float = 0.0
    end: float = 1.0

    @property
    def is_nothing(self) -> bool:
        return self.factor == 1 and self.count == self.size and (self.start, self.end) == (0.0, 1.0)

    @property
    def is_exact(self) -> bool:
        """Whether the size times the factor is a whole number."""
        return self.count == self.size * self.factor


def coordinates(stretch: Stretch, how: Interpolation) -> Floats:
    """Where on the original axis each entry of the resized one lies.

    Raises:
        NotTrainable: the mode of coordinates is not known.
    """
    found = MODES.get(how.coordinates)
    if found is None:
        raise NotTrainable(f"resizing by coordinates {how.coordinates!r} is not known")
    return found(np.arange(stretch.count, dtype=np.float32), stretch)


def _asymmetric(x: Floats, stretch: Stretch) -> Floats:
    return x / np.float32(stretch.factor)


def _align_corners(x: Floats, stretch: Stretch) -> Floats:
    return x * np.float32(stretch.size - 1) / np.float32(max(stretch.count - 1, 1))


def _half_pixel(x: Floats, stretch: Stretch) -> Floats:
    half = np.float32(0.5)
    return (x + half) / np.float32(stretch.factor) - half


def _pytorch_half_pixel(x: Floats, stretch: Stretch) -> Floats:
    return _half_pixel(x, stretch) if stretch.count > 1 else np.zeros_like(x)


def _half_pixel_symmetric(x: Floats, stretch: Stretch) -> Floats:
    """The centres of both axes fall together."""
    factor, half = np.float32(stretch.factor), np.float32(0.5)
    adjustment = np.float32(stretch.count) / (factor * np.float32(stretch.size))
    offset = np.float32(stretch.size / 2) * (1 - adjustment)
    return offset + (x + half) / factor - half


def _crop_and_resize(x: Floats, stretch: Stretch) -> Floats:
    start, end, last = (np.float32(item) for item in (stretch.start, stretch.end, stretch.size - 1))
    if stretch.count == 1:
        return np.full_like(x, np.float32(0.5) * (start + end) * last)
    return start * last + x * (end - start) * last / np.float32(stretch.count - 1)


MODES: dict[str, Callable[[Floats, Stretch], Floats]] = {
    "align_corners": _align_corners,
    "asymmetric": _asymmetric,
    "half_pixel": _half_pixel,
    "half_pixel_symmetric": _half_pixel_symmetric,
    "pytorch_half_pixel": _pytorch_half_pixel,
    "tf_crop_and_resize": _crop_and_resize,
}


def nearest(stretch: Stretch, how: Interpolation) -> Places:
    """The entry that each resized one is a copy of.

    Raises:
        NotTrainable: the way of rounding is not known.
    """
    x = coordinates(stretch, how)
    half = np.float32(0.5)
    if how.rounding == "round_prefer_floor":
        found = np.ceil(x - half)
    elif how.rounding == "round_prefer_ceil":
        found = np.floor(x + half)
    elif how.rounding in ("floor", "ceil"):
        found = np.floor(x) if how.rounding == "floor" else np.ceil(x)
    else:
        raise NotTrainable(f"resizing with rounding {how.rounding!r} is not known")
    places: Places = np.clip(found.astype(np.int64), 0, stretch.size - 1)
    return places


def matrix(stretch: Stretch, how: Interpolation) -> Floats:
    """Weights (count, size) of linear or cubic interpolation; entries beyond the edges are those at the edges."""
    x = coordinates(stretch, how)
    shrink = min(stretch.factor, 1.0) if how.antialias else 1.0
    reach = int(np.ceil((1 if how.mode == "linear" else 2) / shrink))
    places = np.floor(x).astype(np.int64)[:, None] + np.arange(1 - reach, 1 + reach)
    distances = np.abs((places - x[:, None]) * shrink)
    weights = np.maximum(1 - distances, 0) if how.mode == "linear" else _cubic(distances, how.cubic_a)
    if how.exclude_outside:
        weights = np.where((places < 0) | (places >= stretch.size), 0, weights)
    if how.exclude_outside or how.antialias:
        weights = weights / weights.sum(1, keepdims=True)
    result = np.zeros((stretch.count, stretch.size), np.float32)
    rows = np.broadcast_to(np.arange(stretch.count)[:, None], places.shape)
    np.add.at(result, (rows, np.clip(places, 0, stretch.size - 1)), weights.astype(np.float32))
    return result


def _cubic(distances: NDArray[np.floating], a: float) -> NDArray[np.floating]:
    """Keys 1981 (doi:10.1109/TASSP.1981.1163711), equation 4 with a free coefficient."""
    near = ((a + 2) * distances - (a + 3)) * distances**2 + 1
    far = ((distances - 5) * distances + 8) * distances * a - 4 * a
    return np.where(distances <= 1, near, np.where(distances < 2, far, 0))


def outside(stretch: Stretch, how: Interpolation) -> NDArray[np.bool_]:
    """Which resized entries lie beyond the original axis."""
    x = coordinates(stretch, how)
    return (x < 0) | (x > stretch.size - 1)
