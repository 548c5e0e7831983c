"""Which form and ranks a layer gets by itself: by its share of multiplications, by energy, or by its noise."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from compression.lowrank.evbmf import evbmf_rank
from compression.lowrank.factors import Built, Form, Option, Problem
from compression.lowrank.forms import build, first_axes, options
from compression.lowrank.norm import SAME, Norm, dominant
from compression.lowrank.view import view

_TRIED = 3
"""Options of a form that are built before the best of them is taken."""


def by_ratio(problem: Problem, forms: Sequence[Form], ratio: float) -> Built | None:
    """The chain that loses least of those with at most this share of the layer's multiplications."""
    limit = ratio * problem.geometry.macs(problem.geometry.whole)
    tried = [
        build(problem, item)
        for form in forms
        for item in _promising([item for item in options(problem, form) if item.macs <= limit])
    ]
    return min(tried, key=lambda built: (built.error, built.option.macs), default=None)


def by_energy(problem: Problem, forms: Sequence[Form], energy: float) -> Built | None:
    """The chain with fewest multiplications of those that keep this share of the energy."""
    found = [_cheapest(problem, frontier(options(problem, form)), 1 - energy) for form in forms]
    kept = [built for built in found if built is not None]
    return min(kept, key=lambda built: (built.option.macs, built.error), default=None)


def by_noise(problem: Problem, form: Form) -> Built | None:
    """The chain whose ranks stand out of the noise of the weights, rounded up (Nakajima et al. 2013)."""
    least = noise_ranks(problem, form)
    enough = [
        item
        for item in options(problem, form)
        if all(rank >= wanted for rank, wanted in zip(item.ranks, least, strict=True))
    ]
    chosen = min(enough, key=lambda item: item.macs, default=None)
    return None if chosen is None else build(problem, chosen)


def noise_ranks(problem: Problem, form: Form) -> tuple[int, ...]:
    """Ranks by variational Bayes of the weight unfolded as the form needs it; 1 at least."""
    norm = Norm(inputs=problem.geometry.inputs, kernel=problem.geometry.kernel)
    plain = replace(problem, weight=problem.stored, norm=norm, outputs=SAME)
    outer = _rank(dominant(plain.flat, plain.norm).energies, *plain.flat.shape)
    if form == "svd":
        return (outer,)
    seen = view(plain, first_axes(plain) if form == "spatial" else ())
    rows = seen.weight.shape[1]
    inner = _rank(seen.energies(), rows, seen.weight.size // rows)
    if form == "tucker":
        return (inner, outer)
    return (inner,) if form == "spatial" else (max(inner, outer),)


def frontier(found: Sequence[Option]) -> list[Option]:
    """Those that no other beats in multiplications and error, fewest multiplications first.

    Where errors are not known yet, all of them.
    """
    kept: list[Option] = []
    for item in sorted(found, key=lambda item: (item.macs, item.error or 0.0)):
        if item.error is None or not kept or item.error < (kept[-1].error or 0.0):
            kept.append(item)
    return kept


def _promising(found: Sequence[Option]) -> list[Option]:
    """Those worth building: the least estimated errors; of unknown ones, the most multiplications."""
    if not found:
        return []
    if found[0].error is None:
        return [max(found, key=lambda item: item.macs)]
    count = 1 if found[0].is_exact else _TRIED
    return sorted(found, key=lambda item: (item.error or 0.0, item.macs))[:count]


def _cheapest(problem: Problem, ladder: Sequence[Option], allowed: float) -> Built | None:
    """The first of a frontier whose chain loses no more than that; errors fall along it, so halves are tried."""
    low, high, best = 0, len(ladder), None
    while low < high:
        middle = (low + high) // 2
        item = ladder[middle]
        built = None if item.is_exact and item.error is not None else build(problem, item)
        if (item.error or 0.0 if built is None else built.error) <= allowed:
            high, best = middle, built or build(problem, item)
        else:
            low = middle + 1
    return best


def _rank(energies: np.ndarray, rows: int, columns: int) -> int:
    return max(evbmf_rank(np.sqrt(energies[: min(rows, columns)]), rows, columns), 1)
