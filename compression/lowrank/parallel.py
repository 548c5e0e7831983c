"""Canonical polyadic decomposition: a tensor as a sum of rank-one tensors, by alternating least squares.

Carroll and Chang 1970; Harshman 1970; as in Lebedev et al. 2015 (arXiv:1412.6553), section 3, for kernels. Written
with unfoldings and Khatri-Rao products, as in Kolda and Bader 2009 (Tensor Decompositions and Applications, SIAM
Review 51), section 3.4.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
SWEEPS = 100
_STILL = 1e-6
_RIDGE = 1e-9
"""Keeps columns that become alike from growing without bound."""


def parallel_factors(tensor: Doubles, rank: int, seed: int) -> tuple[Doubles, ...]:
    """Factors of shape (size of the axis, rank), one for each axis, with columns of equal length over the axes.

    The start is drawn by the seed around the main directions of each axis.
    """
    random = np.random.default_rng(seed)
    unfoldings = [np.moveaxis(tensor, axis, 0).reshape(size, -1) for axis, size in enumerate(tensor.shape)]
    factors = [_start(unfolded, rank, random) for unfolded in unfoldings]
    whole, before = max(float(np.square(tensor).sum()), 1e-300), np.inf
    for _ in range(SWEEPS):
        error = 1 - _sweep(unfoldings, factors) / whole
        if before - error < _STILL:
            break
        before = error
    return _balanced(factors)


def khatri_rao(factors: Sequence[Doubles]) -> Doubles:
    """The outer product of the factors' columns, each by each, flattened: (product of the sizes, rank)."""
    whole = factors[0]
    for factor in factors[1:]:
        whole = (whole[:, None] * factor).reshape(-1, factor.shape[1])
    return whole


def _start(unfolded: Doubles, rank: int, random: np.random.Generator) -> Doubles:
    _, vectors = np.linalg.eigh(unfolded @ unfolded.T)
    main = vectors[:, ::-1][:, :rank]
    drawn = random.normal(size=(len(unfolded), rank)) / np.sqrt(len(unfolded))
    drawn[:, : main.shape[1]] = main + 0.1 * drawn[:, : main.shape[1]]
    return np.asarray(drawn)


def _sweep(unfoldings: Sequence[Doubles], factors: list[Doubles]) -> float:
    """Each factor made the best for the others as they are, in place; returns the energy that they then explain."""
    explained = 0.0
    for axis, unfolded in enumerate(unfoldings):
        others = [factor for place, factor in enumerate(factors) if place != axis]
        target = unfolded @ khatri_rao(others)
        gram = np.prod([factor.T @ factor for factor in others], axis=0)
        found = _solved(gram, target)
        explained = float(np.sum((2 * target - found @ gram) * found))
        last = axis == len(factors) - 1
        factors[axis] = found if last else found / np.maximum(np.linalg.norm(found, axis=0), 1e-30)
    return explained


def _solved(gram: Doubles, target: Doubles) -> Doubles:
    ridge = _RIDGE * max(float(np.trace(gram)) / len(gram), 1e-30)
    return np.asarray(np.linalg.solve(gram + ridge * np.eye(len(gram)), target.T).T)


def _balanced(factors: list[Doubles]) -> tuple[Doubles, ...]:
    lengths = [np.maximum(np.linalg.norm(factor, axis=0), 1e-30) for factor in factors]
    each = np.prod(lengths, axis=0) ** (1 / len(factors))
    return tuple(factor / length * each for factor, length in zip(factors, lengths, strict=True))
