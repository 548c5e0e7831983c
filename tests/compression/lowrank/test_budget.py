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
def test_the_budget_is_kept_and_the_best_is_found(seed: int, share: float) -> None:
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
    assert error == pytest.approx(best)


def test_a_layer_that_matters_more_is_cut_less() -> None:
    found = {name: [rung(200, 0.4), rung(500, 0.2)] for name in "ab"}
    made = allot(found, {"a": 1000, "b": 1000}, 1200, {"a": 1.0, "b": 10.0})
    assert made.options["a"].macs == 200 and "b" not in made.options


def test_the_least_is_told_where_the_budget_cannot_be_met() -> None:
    found = {"a": [rung(300, 0.4), rung(500, 0.2)]}
    assert allot(found, {"a": 1000}, 200, {"a": 1.0}).macs == 300


def test_nothing_is_cut_where_all_fits() -> None:
    found, macs = ladders(0)
    assert not allot(found, macs, sum(macs.values()), dict.fromkeys(macs, 1.0)).options
