"""Ranks out of one budget, against every combination of options that there is."""

from itertools import product

import numpy as np
import pytest

from compression.lowrank.budget import allot
from compression.lowrank.factors import Option


def rung(macs: int, error: float) -> Option:
    return Option(form="svd", ranks=(macs,), chain=(), macs=macs, error=error, is_exact=True)


def ladders(seed: int) -> tuple[dict[str, list[Option]], dict[str, int]]:
    """Three layers, whose options err less the more they may compute."""
    random = np.random.default_rng(seed)
    macs = {name: int(random.integers(800, 3000)) for name in "abc"}
    made = {
        name: [
            rung(int(whole * share), float((1 - share) ** random.uniform(1, 3)))
            for share in (0.1, 0.3, 0.5, 0.8)
        ]
        for name, whole in macs.items()
    }
    return made, macs


@pytest.mark.parametrize("share", [0.2, 0.45, 0.7, 0.95])
@pytest.mark.parametrize("seed", range(6))
def test_the_budget_is_kept_and_nearly_the_best_is_found(seed: int, share: float) -> None:
    found, macs = ladders(seed)
    limit, equal = share * sum(macs.values()), dict.fromkeys(macs, 1.0)
    made = allot(found, macs, limit, equal)
    chosen = [made.options.get(name) for name in "abc"]
    error = sum(item.error or 0.0 for item in chosen if item is not None)
    used = sum(macs[name] if item is None else item.macs for name, item in zip("abc", chosen, strict=True))
    everything = product(
        *([(macs[name], 0.0), *((o.macs, o.error or 0.0) for o in found[name])] for name in "abc")
    )
    best = min(sum(e for _, e in way) for way in everything if sum(m for m, _ in way) <= limit)
    assert made.macs == used <= limit
    assert best <= error + 1e-12 <= best + 0.1


def test_what_the_last_step_leaves_goes_back() -> None:
    """Going down ends at 100 + 1000 of 1800; the first layer's second option still fits in."""
    found = {"a": [rung(100, 0.3), rung(600, 0.25)], "b": [rung(900, 0.5)]}
    made = allot(found, {"a": 1000, "b": 1000}, 1800, {"a": 1.0, "b": 1.0})
    assert made.macs == 1600
    assert made.options["a"].macs == 600 and "b" not in made.options


def test_nothing_is_cut_where_all_fits() -> None:
    found, macs = ladders(0)
    assert not allot(found, macs, sum(macs.values()), dict.fromkeys(macs, 1.0)).options
