"""Orthogonal matching pursuit of many signals at once, and whole numbers in the place of what it finds."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Places = NDArray[np.int64]
_PIECE = 1 << 15
"""Correlations looked at together: what fits into a processor's cache."""
_NOTHING = 1e-12
_RIDGE = 1e-10
_SWEEPS = 3


@dataclass(frozen=True, kw_only=True)
class Codes:
    """`atoms[n, j]` times `gains[n, j]`, summed over j, stands for signal n; a gain of 0 is no entry."""

    atoms: Places
    gains: Doubles

    def of(self, dictionary: Doubles) -> Doubles:
        """The signals (n, d)."""
        out = np.zeros((len(self.atoms), dictionary.shape[1]))
        for slot in range(self.atoms.shape[1]):
            out += self.gains[:, slot, None] * dictionary[self.atoms[:, slot]]
        return out


def pursue(signals: Doubles, dictionary: Doubles, nonzeros: int, tolerance: float = 0.0) -> Codes:
    """Sparse codes of signals by Batch-OMP (Rubinstein, Zibulevsky and Elad 2008, CS-2008-08, algorithm 1).

    The Gram matrix takes the place of residuals. Each of few coefficients is solved for anew when one is added, all
    signals together, which numpy does faster than progressive Cholesky factors of each.

    Args:
        signals: (n, d).
        dictionary: (K, d); atoms need not have length 1, those of length 0 are never chosen.
        nonzeros: entries of a signal at most.
        tolerance: a signal gets no more entries once its squared residual is at most this.
    """
    lengths = np.sqrt(np.sum(dictionary**2, axis=1))
    unit = dictionary / np.where(lengths > 0, lengths, 1.0)[:, None]
    gram = unit @ unit.T
    found = Codes(
        atoms=np.zeros((len(signals), nonzeros), np.int64), gains=np.zeros((len(signals), nonzeros))
    )
    for part in _pieces(len(signals), len(dictionary)):
        _pursue(
            signals[part] @ unit.T, np.sum(signals[part] ** 2, axis=1), gram, tolerance, _cut(found, part)
        )
    found.gains[:] = np.divide(
        found.gains, lengths[found.atoms], out=np.zeros_like(found.gains), where=lengths[found.atoms] > 0
    )
    return found


def rounded(codes: Codes, signals: Doubles, dictionary: Doubles, top: int) -> Codes:
    """Whole gains from -top to top on the same atoms: the nearest, then each the best for all others given."""
    gram = dictionary @ dictionary.T
    gains = np.clip(np.rint(codes.gains), -top, top)
    for part in _pieces(len(signals), len(dictionary)):
        own = _cut(codes, part)
        wanted = np.take_along_axis(signals[part] @ dictionary.T, own.atoms, axis=1)
        inner = gram[own.atoms[:, :, None], own.atoms[:, None, :]]
        _settle(gains[part], wanted, inner, own.gains != 0, top)
    return Codes(atoms=codes.atoms, gains=gains)


def _pursue(correlations: Doubles, energy: Doubles, gram: Doubles, tolerance: float, found: Codes) -> None:
    """Fill in `found`, its gains for atoms of length 1."""
    active = np.flatnonzero(energy > tolerance)
    left = correlations[active]
    least = _NOTHING * np.sqrt(energy)
    for count in range(1, found.atoms.shape[1] + 1):
        best = np.argmax(np.abs(left), axis=1)
        worth = np.abs(left[np.arange(len(left)), best]) > least[active]
        active = active[worth]
        if not active.size:
            return
        found.atoms[active, count - 1] = best[worth]
        chosen = found.atoms[active, :count]
        wanted = np.take_along_axis(correlations[active], chosen, axis=1)
        inner = gram[chosen[:, :, None], chosen[:, None, :]] + _RIDGE * np.eye(count)
        gains = np.linalg.solve(inner, wanted[:, :, None])[:, :, 0]
        found.gains[active, :count] = gains
        open_ = energy[active] - np.sum(gains * wanted, axis=1) > tolerance
        active, chosen, gains = active[open_], chosen[open_], gains[open_]
        left = correlations[active]
        for slot in range(count):
            left -= gains[:, slot, None] * gram[chosen[:, slot]]
        np.put_along_axis(left, chosen, 0.0, axis=1)


def _settle(gains: Doubles, wanted: Doubles, inner: Doubles, used: NDArray[np.bool_], top: int) -> None:
    """Coordinate descent over whole numbers, in place."""
    for _ in range(_SWEEPS):
        before = gains.copy()
        for slot in range(gains.shape[1]):
            own = inner[:, slot, slot]
            others = np.einsum("nj,nj->n", inner[:, slot], gains) - own * gains[:, slot]
            best = np.divide(wanted[:, slot] - others, own, out=np.zeros_like(own), where=own > 0)
            gains[:, slot] = np.where(used[:, slot], np.clip(np.rint(best), -top, top), 0.0)
        if np.array_equal(before, gains):
            return


def _pieces(signals: int, atoms: int) -> Iterator[slice]:
    step = max(_PIECE // atoms, 1)
    for start in range(0, signals, step):
        yield slice(start, start + step)


def _cut(codes: Codes, part: slice) -> Codes:
    return Codes(atoms=codes.atoms[part], gains=codes.gains[part])
