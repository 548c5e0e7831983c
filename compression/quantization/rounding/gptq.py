"""GPTQ: codes chosen one input at a time, the error of each spread over the inputs still to come.

Frantar et al. 2023, GPTQ (arXiv:2210.17323), algorithm 1, with the inverse Hessian's upper Cholesky factor;
inputs in the order of their energy (activation order) on grids that are fixed beforehand (static groups), so that
any order keeps blocks whole. Two further steps bring the outputs nearer: sweeps of coordinate descent over the codes
(Behdin et al. 2023, QuantEase, arXiv:2309.01885, equation 8), and least-squares scales for given codes.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg.lapack import dtrtri  # type: ignore[import-untyped]

from compression.quantization.rounding.blocks import Doubles, Floats, Grid, Rounded, Scheme, spread
from compression.quantization.rounding.grids import searched_grid
from compression.quantization.rounding.rescaling import rescaled

BATCH = 64
"""Inputs whose errors are gathered before they are spread over all that follow."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is done beyond one pass of GPTQ."""

    damping: float = 0.01
    """Added to the diagonal of H, as a share of its mean."""
    passes: int = 2
    """Of GPTQ, each on the scales that suit the codes of the one before."""
    sweeps: int = 1
    """Of coordinate descent after each pass."""


def round_by_gptq(weight: Floats, scheme: Scheme, moments: Doubles, effort: Effort | None = None) -> Rounded:
    """The matrix (rows, K) as codes whose outputs on the calibration rows stay near.

    Args:
        weight: float32 (rows, K).
        scheme: codes and blocks.
        moments: H = X^T X of the layer's inputs, (K, K), float64, symmetric.
        effort: how much is tried.

    Raises:
        FloatingPointError: H holds NaN or infinity.
    """
    effort = effort or Effort()
    hessian = _damped(moments, effort.damping)
    order = np.argsort(-np.diagonal(hessian), kind="stable")
    ordered = np.ascontiguousarray(hessian[np.ix_(order, order)])
    factor = upper_factor(ordered)
    grid = searched_grid(weight, scheme, 1.0 / np.square(_unsorted(np.diagonal(factor), order)))
    columns = np.ascontiguousarray(weight.T[order])
    single = ordered.astype(np.float32)
    for _ in range(effort.passes):
        steps, origin = _steps(grid, weight.shape[1], order)
        codes = _pass(columns, steps, origin, scheme, factor.astype(np.float32))
        for _ in range(effort.sweeps):
            _descend(columns, codes, steps, origin, scheme=scheme, hessian=single)
        whole = np.empty(weight.shape, np.uint8)
        whole[:, order] = codes.T.astype(np.uint8)
        grid = rescaled(weight, whole, grid, hessian)
    return Rounded(codes=whole, grid=grid)


def upper_factor(hessian: Doubles) -> Doubles:
    """The upper triangular U with H^-1 = U^T U, from a Cholesky factor of H read backwards.

    With J the exchange matrix and J H J = L L^T, H = M M^T for the upper triangular M = J L J, and U = M^-1.
    """
    lower = np.linalg.cholesky(hessian[::-1, ::-1])
    inverse, _ = dtrtri(lower, lower=1)
    return np.ascontiguousarray(np.triu(inverse[::-1, ::-1]))


def _damped(moments: Doubles, damping: float) -> Doubles:
    """H with its diagonal raised; an input that is always zero gets 1, and so costs nothing and is rounded alone."""
    if not np.isfinite(moments).all():
        raise FloatingPointError("the second moments hold NaN or infinity")
    hessian = moments.astype(np.float64)
    diagonal = np.diagonal(hessian).copy()
    mean = float(diagonal.mean()) or 1.0
    index = np.arange(len(hessian))
    hessian[index, index] = np.where(diagonal > 0, diagonal, mean) + damping * mean
    return hessian


def _unsorted(values: Doubles, order: np.ndarray) -> Doubles:
    out = np.empty_like(values)
    out[order] = values
    return out


def _steps(grid: Grid, width: int, order: np.ndarray) -> tuple[Floats, Floats]:
    """Scale and zero point of each weight, (K, rows) in the order of work."""
    scale = np.broadcast_to(spread(grid.scale, grid.scheme, width), (len(grid.scale), width))
    zero = np.broadcast_to(spread(grid.zero_point, grid.scheme, width), scale.shape)
    return np.ascontiguousarray(scale.T[order]), np.ascontiguousarray(zero.T[order].astype(np.float32))


def _nearest(row: Floats, step: Floats, origin: Floats, scheme: Scheme) -> Floats:
    codes: Floats = np.clip(np.rint(row / step) + origin, 0, scheme.top)
    return codes


def _pass(columns: Floats, steps: Floats, origin: Floats, scheme: Scheme, factor: Floats) -> Floats:
    """One pass of GPTQ; codes as float32 of shape (K, rows)."""
    left = columns.copy()
    codes = np.empty_like(left)
    for start in range(0, len(left), BATCH):
        stop = min(start + BATCH, len(left))
        errors = np.empty((stop - start, left.shape[1]), np.float32)
        for k in range(start, stop):
            codes[k] = _nearest(left[k], steps[k], origin[k], scheme)
            error = (left[k] - (codes[k] - origin[k]) * steps[k]) / factor[k, k]
            errors[k - start] = error
            left[k + 1 : stop] -= factor[k, k + 1 : stop, None] * error
        left[stop:] -= factor[start:stop, stop:].T @ errors
    return codes


def _descend(
    columns: Floats, codes: Floats, steps: Floats, origin: Floats, *, scheme: Scheme, hessian: Floats
) -> None:
    """A sweep in which each input's codes take the best place, all others given; never raises the error."""
    error = columns - (codes - origin) * steps
    pull = hessian @ error
    for start in range(0, len(codes), BATCH):
        stop = min(start + BATCH, len(codes))
        local = pull[start:stop].copy()
        moved = np.empty_like(local)
        inner = hessian[start:stop, start:stop]
        for k in range(stop - start):
            row = start + k
            value = (codes[row] - origin[row]) * steps[row]
            best = _nearest(value + local[k] / inner[k, k], steps[row], origin[row], scheme)
            moved[k] = (codes[row] - best) * steps[row]
            codes[row] = best
            local[k:] += inner[k:, k, None] * moved[k]
        pull[stop:] += hessian[stop:, start:stop] @ moved
