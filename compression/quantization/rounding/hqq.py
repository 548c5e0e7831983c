"""Half-quadratic quantization: zero points (or scales) that leave a sparse error, without data.

Badri and Shaji 2023, Half-Quadratic Quantization of Large Machine Learning Models: minimise ||W - deq(q(W))||_p
with p < 1, so that a few outliers may be far off while the many are near. Half-quadratic splitting alternates
between the error e (a generalised soft threshold, their equation 3) and the parameters (a mean, their equation 5).
"""

import numpy as np

from compression.quantization.affine import TINY
from compression.quantization.rounding.blocks import (
    Codes,
    Floats,
    Grid,
    Rounded,
    Scheme,
    encode,
    in_blocks,
    strips,
)
from compression.quantization.rounding.grids import grid_of_extremes

P, BETA, KAPPA, ROUNDS = 0.7, 10.0, 1.01, 12
"""The norm, the first weight of the splitting and its growth as in the authors' code, and the rounds."""


def round_half_quadratic(weight: Floats, scheme: Scheme) -> Rounded:
    """The matrix (rows, K) on the grid that half-quadratic splitting finds, from the extremes' grid.

    Zero points move as in the paper (those of symmetric grids are fixed) and are rounded to codes, as they are
    stored; to make up for that, scales move too, by least squares against W - e. Each block keeps the
    parameters with the least error seen.
    """
    start = grid_of_extremes(weight, scheme)
    scales, zeros = [], []
    for part in strips(weight.shape):
        scale, zero = _solve(in_blocks(weight[part], scheme), start.rows(part))
        scales.append(scale)
        zeros.append(zero)
    grid = Grid(scheme=scheme, scale=np.concatenate(scales), zero_point=np.concatenate(zeros))
    return Rounded(codes=encode(weight, grid), grid=grid)


def _solve(blocks: Floats, grid: Grid) -> tuple[Floats, Codes]:
    """Works in units of each block's largest weight, in which `BETA` means the same for every block."""
    scheme = grid.scheme
    unit = np.maximum(np.abs(blocks).max(axis=2, keepdims=True), TINY)
    weight = blocks / unit
    scale = grid.scale[:, :, None] / unit
    zero = grid.zero_point[:, :, None].astype(np.float32)
    best_scale, best_zero = scale, zero
    least = _error(weight, scale, zero, scheme)
    beta = BETA
    for _ in range(ROUNDS):
        codes = _codes(weight, scale, zero, scheme)
        sparse = _shrink(weight - (codes - zero) * scale, beta)
        if not scheme.symmetric:
            zero = np.mean(codes - (weight - sparse) / scale, axis=2, keepdims=True)
        scale = _fitted(weight - sparse, codes - zero, scale)
        whole = np.clip(np.rint(zero), 0, scheme.top)
        error = _error(weight, scale, whole, scheme)
        better = error < least
        least = np.where(better, error, least)
        best_scale, best_zero = np.where(better, scale, best_scale), np.where(better, whole, best_zero)
        beta *= KAPPA
    floor = np.where(best_scale < 0, -TINY, TINY)
    out = best_scale * unit
    out = np.where(np.abs(out) < TINY, floor, out)
    return out[:, :, 0].astype(np.float32), best_zero[:, :, 0].astype(np.uint8)


def _codes(weight: Floats, scale: Floats, zero: Floats, scheme: Scheme) -> Floats:
    codes: Floats = np.clip(np.rint(weight / scale + zero), 0, scheme.top)
    return codes


def _shrink(error: Floats, beta: float) -> Floats:
    """The proximal step of the lp norm: sign(e) max(|e| - |e|^(p - 1) / beta, 0)."""
    size = np.abs(error)
    return np.sign(error) * np.maximum(size - np.power(np.maximum(size, 1e-8), P - 1) / beta, 0)


def _fitted(target: Floats, steps: Floats, scale: Floats) -> Floats:
    """The scale s that leaves the least ||target - s * steps||^2; the old one where all steps are 0."""
    power = np.sum(steps * steps, axis=2, keepdims=True)
    found = np.sum(target * steps, axis=2, keepdims=True) / np.maximum(power, 1)
    return np.where((power > 0) & (np.abs(found) > TINY), found, scale)


def _error(weight: Floats, scale: Floats, zero: Floats, scheme: Scheme) -> Floats:
    error: Floats = np.sum(
        np.abs(weight - (_codes(weight, scale, zero, scheme) - zero) * scale) ** P, axis=2, keepdims=True
    )
    return error
