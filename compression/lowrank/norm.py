"""How the error of a factorized weight is measured: on the weight itself, or on what the layer gives for its data.

With C the moment matrix of a layer's inputs (or patches of them), |(W - W') X|^2 = tr((W - W') C (W - W')^T). Without
data C is the identity. What is least in this norm is found in closed form: SVD-LLM (arXiv:2403.07378), section 3.2;
DRONE (Chen et al. 2021), theorem 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
_CUT = 1e-12
"""Directions that carry less than this share of the largest count as never seen."""


@dataclass(frozen=True, kw_only=True)
class Norm:
    """The norm of weights of shape (outputs, inputs, *kernel).

    `moments` is C over (inputs, *kernel) flattened, symmetric and positive semidefinite; None for the identity.
    """

    inputs: int
    kernel: tuple[int, ...] = ()
    moments: Doubles | None = None

    def times(self, weight: Doubles) -> Doubles:
        """W C for a flattened weight (outputs, width)."""
        return weight if self.moments is None else weight @ self.moments

    def energy(self, weight: Doubles) -> float:
        """tr(W C W^T) of a weight of any shape."""
        flat = weight.reshape(len(weight), -1)
        return float(max(np.sum(self.times(flat) * flat), 0.0))

    def error(self, weight: Doubles, other: Doubles) -> float:
        """Share of the energy that is lost where `other` takes the place of `weight`."""
        whole = self.energy(weight)
        return self.energy(weight - other) / whole if whole > 0 else 0.0

    def root(self, axes: Sequence[int] = ()) -> "Root":
        """The root of C summed over all kernel axes but `axes`: of the inputs, and these taps."""
        kept = prod(self.kernel[axis] for axis in axes)
        if self.moments is None:
            return SAME
        return Root.of(
            _marginal(self.moments, self.inputs, self.kernel, axes).reshape(self.inputs * kept, -1)
        )


@dataclass(frozen=True, kw_only=True)
class Root:
    """S with S S = C and its pseudo-inverse; both None for the identity."""

    forth: Doubles | None
    back: Doubles | None

    @classmethod
    def of(cls, moments: Doubles) -> "Root":
        values, vectors = np.linalg.eigh(moments)
        seen = values > _CUT * max(float(values[-1]), np.finfo(float).tiny)
        roots = np.sqrt(np.where(seen, values, 0.0))
        inverse = np.divide(1.0, roots, out=np.zeros_like(roots), where=seen)
        return cls(forth=(vectors * roots) @ vectors.T, back=(vectors * inverse) @ vectors.T)

    def whiten(self, matrix: Doubles) -> Doubles:
        """S M for M with the rows that C is over."""
        return matrix if self.forth is None else self.forth @ matrix

    def unwhiten(self, matrix: Doubles) -> Doubles:
        return matrix if self.back is None else self.back @ matrix


SAME = Root(forth=None, back=None)
"""Of the identity."""


@dataclass(frozen=True, kw_only=True)
class Dominant:
    """The best approximations of a matrix W of every rank: W' = left[:, :r] @ right[:r]."""

    energies: Doubles
    """Squared singular values in the norm, largest first."""
    left: Doubles
    right: Doubles


def dominant(weight: Doubles, norm: Norm) -> Dominant:
    """All truncations of a flattened weight (outputs, width) that are nearest in the norm.

    The columns of `left` are the main directions of W X where outputs are fewer: W' = U U^T W is then the minimum, and
    no inverse of C is needed.
    """
    if len(weight) <= weight.shape[1]:
        values, vectors = descending(norm.times(weight) @ weight.T)
        return Dominant(energies=values, left=vectors, right=vectors.T @ weight)
    root = SAME if norm.moments is None else Root.of(norm.moments)
    white = root.whiten(weight.T)
    values, vectors = descending(white @ white.T)
    return Dominant(energies=values, left=white.T @ vectors, right=root.unwhiten(vectors).T)


def descending(gram: Doubles) -> tuple[Doubles, Doubles]:
    """Eigenvalues, negative ones of rounding set to zero, and eigenvectors as columns; largest first."""
    values, vectors = np.linalg.eigh((gram + gram.T) / 2)
    return np.maximum(values[::-1], 0.0), vectors[:, ::-1]


def fit(target: Doubles, gram: Doubles) -> Doubles:
    """A with A G = T of least norm, for positive semidefinite G: the weights that regress on features of moments G."""
    values, vectors = np.linalg.eigh((gram + gram.T) / 2)
    seen = values > _CUT * max(float(values[-1]), np.finfo(float).tiny)
    inverse = np.divide(1.0, values, out=np.zeros_like(values), where=seen)
    return np.asarray(((target @ vectors) * inverse) @ vectors.T)


def _marginal(moments: Doubles, inputs: int, kernel: tuple[int, ...], axes: Sequence[int]) -> Doubles:
    """Sum over taps t of C[(i, a, t), (j, b, t)], with a and b over the axes that stay."""
    rank = len(kernel)
    full = moments.reshape(inputs, *kernel, inputs, *kernel)
    letters = "abcdefghijklmnop"
    first = [0, *(1 + axis for axis in range(rank))]
    second = [rank + 1, *(rank + 2 + axis if axis in axes else 1 + axis for axis in range(rank))]
    kept = [0, *(1 + axis for axis in axes), rank + 1, *(rank + 2 + axis for axis in axes)]
    given, made = ("".join(letters[place] for place in places) for places in ([*first, *second], kept))
    return np.asarray(np.einsum(f"{given}->{made}", full))
