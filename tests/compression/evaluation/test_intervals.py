from math import comb

import numpy as np
import pytest
from scipy import stats

from compression.evaluation.intervals import (
    bootstrap,
    median_interval,
    paired_share_change,
    resampled,
    wilson,
)


@pytest.mark.parametrize(("hits", "total"), [(0, 10), (1, 10), (5, 10), (10, 10), (971, 1000)])
def test_wilson_is_scipys(hits, total):
    expected = stats.binomtest(hits, total).proportion_ci(method="wilson")
    found = wilson(hits, total)
    assert found.value == hits / total
    assert found.low == pytest.approx(expected.low, abs=1e-9)
    assert found.high == pytest.approx(expected.high, abs=1e-9)


def test_paired_change_is_bonett_and_prices_formula():
    """12 samples lost, 4 gained of 100, by hand."""
    p_lost, p_gained = 13 / 102, 5 / 102
    half = 1.959964 * ((p_lost + p_gained - (p_gained - p_lost) ** 2) / 102) ** 0.5
    found = paired_share_change(12, 4, 100)
    assert found.value == pytest.approx(-0.08)
    assert (found.low, found.high) == pytest.approx(
        (p_gained - p_lost - half, p_gained - p_lost + half), abs=1e-6
    )


@pytest.mark.parametrize("lost", range(9))
def test_paired_change_decides_as_mcnemars_exact_test_does(lost):
    """With nothing gained on 200 samples, the exact two-sided p-value is 2 / 2^lost."""
    found = paired_share_change(lost, 0, 200)
    assert (found.high < 0) == (2 / 2**lost < 0.05)


def test_no_changed_sample_is_no_proof_of_equality():
    found = paired_share_change(0, 0, 20)
    assert found.value == 0
    assert found.low < -0.05 and found.high > 0.05


def test_median_interval_takes_the_sign_tests_order_statistics():
    """Of 50 values, the 18th smallest and largest: P(Binomial(50, 1/2) <= 17) = 1.6%, and 3.2% for 18."""
    values = np.random.default_rng(0).permutation(np.arange(1.0, 51.0))
    below = sum(comb(50, k) for k in range(18)) / 2**50
    assert below <= 0.025 < below + comb(50, 18) / 2**50
    found = median_interval(values)
    assert (found.value, found.low, found.high) == (25.5, 18.0, 33.0)


def test_median_interval_of_few_values_is_their_range():
    found = median_interval(np.array([3.0, 1.0, 2.0, 5.0, 4.0]))
    assert (found.low, found.value, found.high) == (1.0, 3.0, 5.0)


def test_median_interval_covers_95_percent():
    rng = np.random.default_rng(1)
    intervals = [median_interval(rng.exponential(size=30)) for _ in range(400)]
    covered = sum(i.low <= np.log(2) <= i.high for i in intervals)
    assert covered >= 0.93 * 400


def test_bootstrap_of_a_mean_is_near_the_normal_interval():
    values = np.random.default_rng(2).normal(size=500)
    draws = resampled(np.ones(500, np.int64), lambda w: w @ values / 500, seed=0)
    found = bootstrap(float(values.mean()), draws)
    half = 1.96 * values.std() / 500**0.5
    assert found.high - found.low == pytest.approx(2 * half, rel=0.1)


def test_resamples_repeat_with_the_seed_and_keep_the_total():
    counts = np.array([3, 0, 7])
    first = resampled(counts, lambda w: w, seed=5)
    assert first.shape == (1000, 3)
    assert np.array_equal(first, resampled(counts, lambda w: w, seed=5, chunk=30))
    assert (first.sum(axis=1) == 10).all() and (first[:, 1] == 0).all()
