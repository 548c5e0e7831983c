"""The scales that suit given codes best: least squares on a layer's outputs."""

import numpy as np

from compression.quantization.affine import TINY
from compression.quantization.rounding.blocks import Codes, Doubles, Floats, Grid, in_blocks, spread

RIDGE = 1e-4
"""Added to the diagonal of each system, as a share of its mean, against blocks that say nearly the same."""
_ROWS = 256


def rescaled(weight: Floats, codes: Codes, grid: Grid, moments: Doubles) -> Grid:
    """The grid with scales that leave the least ||X (W - Q)^T||^2 for these codes and zero points.

    A row's outputs are linear in its scales s: Q = sum over blocks of s_g Z_g with Z = code - zero_point, so that
    (Z_g H Z_h^T) s = Z_g H w is a small system for each row. A scale that would turn its sign, or be
    no normal float, stays.
    """
    whole = moments.astype(np.float32)
    scales = [
        _solve(weight[part], codes[part], grid.rows(part), whole)
        for part in (slice(start, start + _ROWS) for start in range(0, len(weight), _ROWS))
    ]
    return Grid(scheme=grid.scheme, scale=np.concatenate(scales), zero_point=grid.zero_point)


def _solve(weight: Floats, codes: Codes, grid: Grid, moments: Floats) -> Floats:
    scheme, width = grid.scheme, weight.shape[1]
    steps = codes.astype(np.float32) - spread(grid.zero_point, scheme, width).astype(np.float32)
    blocks = in_blocks(steps, scheme)
    count, size = blocks.shape[1:]
    right = np.einsum("rgs,rgs->rg", in_blocks(weight @ moments, scheme), blocks, dtype=np.float64)
    system = np.empty((len(weight), count, count))
    for g in range(count):
        inside = slice(g * size, min((g + 1) * size, width))
        seen = in_blocks(steps[:, inside] @ moments[inside], scheme)
        system[:, g] = np.einsum("rhs,rhs->rh", seen, blocks)
    return _scales(system, right, grid.scale)


def _scales(system: Doubles, right: Doubles, old: Floats) -> Floats:
    """Solves for the change of the scales, so that the ridge holds blocks of zeros to their old ones."""
    index = np.arange(old.shape[1])
    mean = np.maximum(system[:, index, index].mean(axis=1, keepdims=True), TINY)
    residual = right - np.einsum("rgh,rh->rg", system, old.astype(np.float64))
    system[:, index, index] += RIDGE * mean
    found = old + np.linalg.solve(system, residual[:, :, None])[:, :, 0]
    keep = (
        ~np.isfinite(found) | (found * old <= 0) | (np.abs(found) < TINY) | (np.abs(found) > 4 * np.abs(old))
    )
    return np.where(keep, old, found).astype(np.float32)
