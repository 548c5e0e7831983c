"""Scales and zero points for blocks of weights: from the extremes, or searched for by the error they leave."""

import numpy as np

from compression.quantization.affine import TINY
from compression.quantization.rounding.blocks import Codes, Doubles, Floats, Grid, Scheme, in_blocks, strips

SHRINKS = tuple(float(share) for share in np.linspace(1.0, 0.6, 11))
"""Shares of the extremes that a search tries: clipping the largest weights makes all others finer."""


def grid_of_extremes(weight: Floats, scheme: Scheme) -> Grid:
    """The grid that reaches from the lowest to the highest weight of each block, zero included.

    Symmetric: the weight that is farthest from zero takes the lowest code, with a scale below zero where
    it is positive, so that all 2^bits codes are of use. A block of zeros, or a constant one, comes back exactly
    or to within float32.
    """
    parts = [_extremes(in_blocks(weight[part], scheme), scheme) for part in strips(weight.shape)]
    return _joined(parts, scheme)


def searched_grid(weight: Floats, scheme: Scheme, importance: Doubles | None = None) -> Grid:
    """The grid that leaves the least sum of importance * error^2 in each block, over shares of the extremes.

    Args:
        weight: (rows, K).
        scheme: codes and blocks.
        importance: of each of the K inputs, such as the diagonal of their second moments; None for all equal.
    """
    weights = np.ones(weight.shape[1]) if importance is None else importance
    shares = in_blocks((weights / max(float(weights.max()), TINY)).astype(np.float32)[None], scheme)
    parts = [_search(in_blocks(weight[part], scheme), shares, scheme) for part in strips(weight.shape)]
    return _joined(parts, scheme)


def _joined(parts: list[tuple[Floats, Codes]], scheme: Scheme) -> Grid:
    return Grid(
        scheme=scheme,
        scale=np.concatenate([scale for scale, _ in parts]),
        zero_point=np.concatenate([zero for _, zero in parts]),
    )


def _extremes(blocks: Floats, scheme: Scheme, share: float = 1.0) -> tuple[Floats, Codes]:
    low = np.minimum(blocks.min(axis=2), 0).astype(np.float64) * share
    high = np.maximum(blocks.max(axis=2), 0).astype(np.float64) * share
    if scheme.symmetric:
        far = np.where(-low >= high, low, high)
        scale = _safe(far / -scheme.middle)
        return scale, np.full(scale.shape, scheme.middle, np.uint8)
    scale = _safe((high - low) / scheme.top)
    zero = np.clip(np.rint(-low / scale), 0, scheme.top).astype(np.uint8)
    return scale, zero


def _safe(scale: Doubles) -> Floats:
    """No scale of 0, and none that float32 holds with fewer digits."""
    sign = np.where(scale < 0, -1.0, 1.0)
    return np.where(scale == 0, 1.0, sign * np.maximum(np.abs(scale), TINY)).astype(np.float32)


def _search(blocks: Floats, importance: Floats, scheme: Scheme) -> tuple[Floats, Codes]:
    best_scale, best_zero = _extremes(blocks, scheme)
    least = np.full(best_scale.shape, np.inf, np.float32)
    # The peak of a block is a unit that no square over- or underflows in.
    unit = np.maximum(np.abs(blocks).max(axis=2, keepdims=True), TINY)
    scaled, scratch = blocks / unit, np.empty_like(blocks)
    for share in SHRINKS:
        scale, zero = _extremes(blocks, scheme, share)
        step = scale[:, :, None] / unit
        error = _error(scaled, step, zero, importance=importance, scheme=scheme, scratch=scratch)
        better = error < least
        least = np.where(better, error, least)
        best_scale = np.where(better, scale, best_scale)
        best_zero = np.where(better, zero, best_zero)
    return best_scale, best_zero


def _error(
    blocks: Floats, step: Floats, zero: Codes, *, importance: Floats, scheme: Scheme, scratch: Floats
) -> Floats:
    """Importance-weighted squared error of each block."""
    origin = zero[:, :, None].astype(np.float32)
    np.divide(blocks, step, out=scratch)
    np.rint(scratch, out=scratch)
    np.clip(scratch, -origin, scheme.top - origin, out=scratch)
    scratch *= step
    scratch -= blocks
    np.square(scratch, out=scratch)
    scratch *= importance
    total: Floats = scratch.sum(axis=2)
    return total
