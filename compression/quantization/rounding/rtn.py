"""Rounding to the nearest code, with the grid that the extremes of each block give."""

from compression.quantization.rounding.blocks import Floats, Rounded, Scheme, encode
from compression.quantization.rounding.grids import grid_of_extremes


def round_to_nearest(weight: Floats, scheme: Scheme) -> Rounded:
    """The matrix (rows, K) rounded half to even; no data needed."""
    grid = grid_of_extremes(weight, scheme)
    return Rounded(codes=encode(weight, grid), grid=grid)
