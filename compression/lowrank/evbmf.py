"""The rank of a matrix under noise: the global analytic solution of empirical variational Bayes.

Nakajima, Sugiyama, Babacan, Tomioka 2013, Global Analytic Solution of Fully-observed Variational Bayesian Matrix
Factorization, JMLR 14: theorem 2 (which singular values stay) and theorem 4 (the noise variance).
"""

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
_GRID = 4001
_ZOOMS = 4


def evbmf_rank(singular_values: Doubles, rows: int, columns: int) -> int:
    """How many singular values of a `rows` x `columns` matrix stand out of its noise, whose variance is estimated.

    Args:
        singular_values: all min(rows, columns) of them, largest first.
        rows: of the matrix.
        columns: of the matrix.
    """
    short, long = sorted((rows, columns))
    squares = np.zeros(short)
    squares[: len(singular_values)] = np.square(singular_values)
    if short == 0 or squares.sum() <= 0:
        return 0
    alpha = short / long
    edge = _edge(alpha)
    variance = _noise_variance(squares, long, alpha, edge)
    return int(np.count_nonzero(squares > long * variance * edge))


def _edge(alpha: float) -> float:
    """x = (1 + t) (1 + alpha / t) where phi(t) + phi(t / alpha) = 0, phi(z) = log(z + 1) / z - 1/2 (eq. 10-12)."""
    low, high = 1e-9, 10.0
    for _ in range(200):
        middle = (low + high) / 2
        if _phi(middle) + _phi(middle / alpha) > 0:
            low = middle
        else:
            high = middle
    return (1 + low) * (1 + alpha / low)


def _phi(value: float) -> float:
    return float(np.log1p(value)) / value - 0.5


def _noise_variance(squares: Doubles, long: int, alpha: float, edge: float) -> float:
    """The minimum of the free energy between the bounds of theorem 4 (eq. 21-22).

    The energy has several dips, so that a fine grid comes before the search around the lowest one.
    """
    short = len(squares)
    most = min(int(np.ceil(short / (1 + alpha))) - 1, short - 1)
    rest = squares[most:]
    low = max(float(rest[0]) / (long * edge), float(rest.mean()) / long)
    high = float(squares.sum()) / (short * long)
    low = max(low, high * 1e-12)
    if low >= high:
        return high
    best = low
    for _ in range(_ZOOMS):
        grid = np.geomspace(low, high, _GRID)
        energies = _energies(squares, long, alpha, edge, grid)
        place = int(np.argmin(energies))
        best = float(grid[place])
        low, high = float(grid[max(place - 1, 0)]), float(grid[min(place + 1, _GRID - 1)])
    return best


def _energies(squares: Doubles, long: int, alpha: float, edge: float, variances: Doubles) -> Doubles:
    """Free energy of each variance, constants left out: sum of psi0 + [x > edge] psi1 (eq. 15-19)."""
    total = np.zeros(len(variances))
    for square in squares:
        x = max(square, np.finfo(float).tiny) / (long * variances)
        total += x - np.log(x)
        above = x > edge
        t = _tau(x[above], alpha)
        total[above] += np.log1p(t) + alpha * np.log1p(t / alpha) - t
    return total


def _tau(x: Doubles, alpha: float) -> Doubles:
    shifted = x - (1 + alpha)
    return np.asarray((shifted + np.sqrt(np.maximum(shifted**2 - 4 * alpha, 0.0))) / 2)
