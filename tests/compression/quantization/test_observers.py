"""Observers against numpy on the whole data at once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compression.quantization.observers import Histogram, MinMax, NonFinite, Percentile, observer

VALUES = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=30)
BATCHES = st.lists(VALUES, min_size=1, max_size=6)


@given(BATCHES)
def test_minmax_is_numpys(batches):
    seen = MinMax()
    for batch in batches:
        seen.observe(np.array(batch, np.float32))
    whole = np.concatenate([np.array(batch, np.float32) for batch in batches])
    assert (seen.range().low, seen.range().high) == (whole.min(), whole.max())


@given(BATCHES)
def test_a_histogram_loses_no_count_and_its_quantiles_are_right_to_one_bin(batches):
    seen = Histogram(64)
    for batch in batches:
        seen.observe(np.array(batch, np.float32))
    whole = np.sort(np.concatenate([np.array(batch, np.float32) for batch in batches]).astype(np.float64))
    assert seen.counts.sum() == whole.size
    for share in (0.0, 0.1, 0.5, 0.9, 1.0):
        exact = whole[max(int(np.ceil(share * whole.size)) - 1, 0)]
        assert abs(seen.quantile(share) - exact) <= seen.width * 1.001


def test_memory_is_the_same_after_any_number_of_batches():
    seen = Histogram(128)
    for power in range(40):
        seen.observe(np.array([(-2.0) ** power], np.float32))
    assert seen.counts.size == 128 and seen.counts.sum() == 40


def test_percentile_cuts_half_of_the_rest_at_either_end():
    data = np.random.default_rng(0).normal(size=(50, 2000)).astype(np.float32)
    seen = Percentile(99.0)
    for batch in data:
        seen.observe(batch)
    low, high = np.percentile(data, [0.5, 99.5])
    # One bin of 4096 over an interval that is at most twice the data's.
    step = float(2 * 2 * np.abs(data).max() / 4096)
    assert seen.range().low == pytest.approx(low, abs=step)
    assert seen.range().high == pytest.approx(high, abs=step)


def test_percentile_100_is_minmax():
    data = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    seen = Percentile(100.0)
    seen.observe(data)
    assert (seen.range().low, seen.range().high) == (data.min(), data.max())


@pytest.mark.parametrize("value", [0.0, -3.5, 1e-40, 1e30])
@pytest.mark.parametrize("kind", ["minmax", "percentile"])
def test_a_constant_tensor(value, kind):
    seen = observer(kind, 99.9)
    for _ in range(3):
        seen.observe(np.full((2, 2), value, np.float32))
    assert seen.range().low == pytest.approx(value, rel=1e-3, abs=1e-30)
    assert seen.range().high == pytest.approx(value, rel=1e-3, abs=1e-30)


@pytest.mark.parametrize("kind", ["minmax", "percentile"])
def test_nothing_seen_is_zero(kind):
    seen = observer(kind, 99.9)
    seen.observe(np.empty((0, 3), np.float32))
    assert (seen.range().low, seen.range().high) == (0, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["minmax", "percentile"])
def test_nan_and_infinity_are_refused(bad, kind):
    with pytest.raises(NonFinite):
        observer(kind, 99.9).observe(np.array([1.0, bad], np.float32))


def test_integers_and_halves_are_taken():
    seen = Histogram()
    seen.observe(np.arange(10, dtype=np.int64))
    seen.observe(np.array([60000.0], np.float16))
    assert (seen.range().low, seen.range().high) == (0, 60000)
