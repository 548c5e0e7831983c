"""Canonical polyadic decomposition: a tensor as a sum of rank-one tensors, by alternating least squares.

Carroll and Chang 1970; Harshman 1970; as in Lebedev et al. 2015 (arXiv:1412.6553), section 3, for kernels.
"""

import string

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
    factors = [_start(tensor, axis, rank, random) for axis in range(tensor.ndim)]
    whole, before = float(np.square(tensor).sum()), np.inf
    for _ in range(SWEEPS):
        for axis in range(tensor.ndim):
            factors[axis] = _solve(tensor, factors, axis)
            if axis < tensor.ndim - 1:
                factors[axis] = factors[axis] / np.maximum(np.linalg.norm(factors[axis], axis=0), 1e-30)
        error = float(np.square(tensor - compose(factors)).sum()) / max(whole, 1e-300)
        if before - error < _STILL:
            break
        before = error
    return _balanced(factors)


def compose(factors: "list[Doubles] | tuple[Doubles, ...]") -> Doubles:
    """The sum of outer products of the factors' columns."""
    letters = string.ascii_lowercase[: len(factors)]
    terms = ",".join(f"{letter}z" for letter in letters)
    return np.asarray(np.einsum(f"{terms}->{letters}", *factors, optimize=True))


def _start(tensor: Doubles, axis: int, rank: int, random: np.random.Generator) -> Doubles:
    unfolded = np.moveaxis(tensor, axis, 0).reshape(tensor.shape[axis], -1)
    _, vectors = np.linalg.eigh(unfolded @ unfolded.T)
    main = vectors[:, ::-1][:, :rank]
    drawn = random.normal(size=(len(unfolded), rank)) / np.sqrt(len(unfolded))
    drawn[:, : main.shape[1]] = main + 0.1 * drawn[:, : main.shape[1]]
    return np.asarray(drawn)


def _solve(tensor: Doubles, factors: list[Doubles], axis: int) -> Doubles:
    """The factor of one axis that is best for the others as they are."""
    letters = string.ascii_lowercase[: tensor.ndim]
    others = [place for place in range(tensor.ndim) if place != axis]
    terms = ",".join(f"{letters[place]}z" for place in others)
    given = [factors[place] for place in others]
    target = np.einsum(f"{letters},{terms}->{letters[axis]}z", tensor, *given, optimize=True)
    gram = np.ones((target.shape[1],) * 2)
    for factor in given:
        gram *= factor.T @ factor
    gram += _RIDGE * max(float(np.trace(gram)) / len(gram), 1e-30) * np.eye(len(gram))
    return np.asarray(np.linalg.solve(gram, target.T).T)


def _balanced(factors: list[Doubles]) -> tuple[Doubles, ...]:
    lengths = [np.maximum(np.linalg.norm(factor, axis=0), 1e-30) for factor in factors]
    each = np.prod(lengths, axis=0) ** (1 / len(factors))
    return tuple(factor / length * each for factor, length in zip(factors, lengths, strict=True))
