"""Ranks for all layers out of one budget: the options whose errors add up to least."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from compression.knapsack import Option as Choice
from compression.knapsack import undominated
from compression.lowrank.choosing import frontier
from compression.lowrank.factors import Form, Option, Problem
from compression.lowrank.forms import build, options

_RUNGS = 12
"""Options of a form that a layer offers, about."""


@dataclass(frozen=True, kw_only=True)
class Allotment:
    """The option of each layer; those left out stay whole."""

    options: Mapping[str, Option]
    macs: int
    """Of all layers that were in the choice."""


def ladder(problem: Problem, forms: Sequence[Form]) -> list[Option]:
    """Options from the fewest multiplications to the most, each with the error that its chain has."""
    found = [
        item if item.is_exact else replace(item, error=build(problem, item).error, is_exact=True)
        for form in forms
        for item in _thinned(frontier(options(problem, form)))
    ]
    return frontier(found)


def allot(
    ladders: Mapping[str, Sequence[Option]],
    macs: Mapping[str, int],
    limit: float,
    importance: Mapping[str, float],
) -> Allotment:
    """The options of least error in sum, as a multiple-choice knapsack.

    Args:
        ladders: options by layer, with errors.
        macs: of the layers as they are.
        limit: multiplications that all of them together may have left.
        importance: what a layer's error, as a share of its energy, does to the model.

    Returns:
        What keeps the limit; where nothing does, what has fewest multiplications.
    """
    names = sorted(ladders)
    front = undominated([_choices(macs[name], ladders[name], importance[name]) for name in names])
    point = front.truest(limit) or 0
    taken = dict(zip(names, front.choices(point), strict=True))
    chosen = {name: ladders[name][place - 1] for name, place in taken.items() if place > 0}
    return Allotment(options=chosen, macs=int(front.cost[point]))


def _choices(whole: int, found: Sequence[Option], importance: float) -> list[Choice]:
    """The layer as it is, and its options."""
    chains = [Choice(cost=item.macs, noise=importance * (item.error or 0.0)) for item in found]
    return [Choice(cost=whole, noise=0.0), *chains]


def _thinned(found: list[Option]) -> list[Option]:
    """About `_RUNGS` of a frontier, evenly by the logarithm of their multiplications; exact ones all."""
    if len(found) <= _RUNGS or found[0].is_exact:
        return found
    sizes = np.log([item.macs for item in found])
    wanted = np.linspace(sizes[0], sizes[-1], _RUNGS)
    return [found[place] for place in sorted({int(np.argmin(np.abs(sizes - size))) for size in wanted})]
