"""The list of undominated sums against every assignment there is."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from compression.knapsack import Option, undominated

OPTION = st.builds(Option, cost=st.integers(0, 30).map(float), noise=st.integers(0, 30).map(float))
ITEMS = st.lists(st.lists(OPTION, min_size=1, max_size=4), min_size=1, max_size=5)


def everything(items):
    for taken in itertools.product(*(range(len(options)) for options in items)):
        chosen = [options[place] for options, place in zip(items, taken, strict=True)]
        yield sum(item.cost for item in chosen), sum(item.noise for item in chosen)


@given(ITEMS, st.integers(0, 100))
def test_the_cheapest_within_a_noise_is_that_of_brute_force(items, bound):
    front = undominated(items)
    costs = [cost for cost, noise in everything(items) if noise <= bound]
    point = front.cheapest(bound)
    assert front.exact
    assert (point is None) == (not costs)
    if point is not None:
        assert front.cost[point] == min(costs)


@given(ITEMS, st.integers(0, 100))
def test_the_truest_within_a_cost_is_that_of_brute_force(items, bound):
    front = undominated(items)
    noises = [noise for cost, noise in everything(items) if cost <= bound]
    point = front.truest(bound)
    assert (point is None) == (not noises)
    if point is not None:
        assert front.noise[point] == min(noises)


@given(ITEMS)
def test_choices_add_up_to_their_point(items):
    front = undominated(items)
    for point in range(len(front)):
        taken = [options[place] for options, place in zip(items, front.choices(point), strict=True)]
        assert sum(option.cost for option in taken) == front.cost[point]
        assert sum(option.noise for option in taken) == front.noise[point]


def test_a_thinned_front_says_so_and_stays_near():
    rng = np.random.default_rng(0)
    items = [
        [
            Option(cost=bits * float(rng.integers(50, 5000)), noise=float(rng.lognormal() * 2.0**-bits))
            for bits in (4, 8, 16)
        ]
        for _ in range(12)
    ]
    exact, thin = undominated(items, limit=1 << 20), undominated(items, limit=40)
    assert exact.exact and not thin.exact and len(thin) <= 40
    for bound in (2.0, 0.5, 0.1):
        assert thin.cost[thin.cheapest(bound)] <= 1.2 * exact.cost[exact.cheapest(bound)]


def test_nothing_fits():
    front = undominated([[Option(cost=1, noise=2)]])
    assert front.cheapest(1.0) is None and front.truest(0.5) is None
