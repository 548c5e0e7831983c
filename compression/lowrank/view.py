"""A weight seen as (outputs, seen, rest): a first factor mixes what is `seen`, later ones the taps of the `rest`."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from compression.lowrank.factors import Problem
from compression.lowrank.norm import Root, descending, fit

Doubles = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """The weight and the moments with their axes in this order."""

    weight: Doubles
    """(outputs, seen, rest)"""
    moments: Doubles | None
    """(seen, rest, seen, rest)"""
    root: Root
    """Over what is seen, with all taps of the rest alike."""
    order: tuple[int, ...]
    """Kernel axes: those seen first."""
    kernel: tuple[int, ...]
    """Of the weight, in its own order."""

    def energies(self) -> Doubles:
        """Squared singular values of the weight unfolded along what is seen, whitened; largest first."""
        return descending(self._gram(self.weight))[0]

    def reduction(self, target: Doubles, rank: int) -> Doubles:
        """The orthonormal rows (rank, seen) that keep most of the target (any outputs, seen, rest)."""
        _, vectors = descending(self._gram(target))
        rows, _ = np.linalg.qr(self.root.unwhiten(vectors[:, :rank]))
        return np.ascontiguousarray(rows.T)

    def regressed(self, reduce: Doubles) -> tuple[Doubles, Doubles]:
        """The weights (outputs, rank * rest) behind a reduction that lose least, and the moments of what they see."""
        outputs, _, rest = self.weight.shape
        size = len(reduce) * rest
        if self.moments is None:
            kept = np.einsum("osr,ks->okr", self.weight, reduce, optimize=True)
            return kept.reshape(outputs, size), np.eye(size)
        right = np.einsum("srtq,kt->srkq", self.moments, reduce, optimize=True)
        cross = np.tensordot(self.weight, right, axes=2).reshape(outputs, size)
        gram = np.einsum("ks,srlq->krlq", reduce, right, optimize=True).reshape(size, size)
        return fit(cross, gram), gram

    def composed(self, after: Doubles, reduce: Doubles) -> Doubles:
        """The single weight (outputs, inputs, *kernel) of `after` (outputs, rank * rest) behind a reduction."""
        parts = after.reshape(len(after), len(reduce), -1)
        whole = np.einsum("okr,ks->osr", parts, reduce, optimize=True)
        return self.unordered(whole.reshape(len(after), -1, *(self.kernel[axis] for axis in self.order)))

    def unordered(self, array: Doubles) -> Doubles:
        """Kernel axes of (outputs, inputs, *kernel) from this order back into the weight's own."""
        return np.transpose(array, (0, 1, *(2 + place for place in np.argsort(self.order))))

    def _gram(self, target: Doubles) -> Doubles:
        rows = np.moveaxis(target, 1, 0).reshape(target.shape[1], -1)
        white = self.root.whiten(rows)
        return np.asarray(white @ white.T)


def view(problem: Problem, seen: Sequence[int] = ()) -> View:
    """The weight with the inputs and the kernel axes `seen` in front."""
    kernel = problem.geometry.kernel
    order = (*seen, *(axis for axis in range(len(kernel)) if axis not in seen))
    outputs, inputs = problem.weight.shape[:2]
    front = inputs * prod(kernel[axis] for axis in seen)
    weight = np.transpose(problem.weight, (0, 1, *(2 + axis for axis in order)))
    moments = problem.norm.moments
    if moments is not None:
        half = (0, *(1 + axis for axis in order))
        full = moments.reshape(inputs, *kernel, inputs, *kernel)
        moments = np.transpose(full, (*half, *(len(half) + axis for axis in half)))
        moments = moments.reshape(front, -1, front, problem.flat.shape[1] // front)
    return View(
        weight=weight.reshape(outputs, front, -1),
        moments=moments,
        root=problem.norm.root(seen),
        order=order,
        kernel=kernel,
    )
