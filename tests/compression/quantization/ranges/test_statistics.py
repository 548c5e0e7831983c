"""Running statistics against numpy on the whole data at once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compression.quantization.ranges.statistics import MEMORY, Statistics

VALUES = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=30)
BATCHES = st.lists(VALUES, min_size=1, max_size=6)


def observed(batches, folds=1, bins=4096):
    seen = Statistics(folds, bins)
    for index, batch in enumerate(batches):
        values = np.asarray(batch, np.float32)
        seen.observe(float(values.min()), float(values.max()), values, 1.0, index % folds)
    return seen


def whole(batches):
    return np.concatenate([np.asarray(batch, np.float32) for batch in batches])


@given(BATCHES)
def test_extremes_are_numpys(batches):
    seen = observed(batches).distribution()
    assert (seen.low, seen.high) == (whole(batches).min(), whole(batches).max())


@given(BATCHES)
def test_no_count_is_lost_and_quantiles_are_right_to_one_bin(batches):
    seen = observed(batches, bins=64).distribution()
    values = np.sort(whole(batches).astype(np.float64))
    assert seen.total == values.size
    assert seen.zeros == np.sum(values == 0)
    for share in (0.0, 0.1, 0.5, 0.9, 1.0):
        exact = values[max(int(np.ceil(share * values.size)) - 1, 0)]
        assert abs(seen.quantile(share) - exact) <= seen.width * 1.001


@given(BATCHES, st.integers(2, 4))
def test_folds_add_up_to_the_whole(batches, folds):
    seen = observed(batches, folds)
    every = seen.distribution()
    for fold in range(folds):
        own, rest = seen.distribution(only=fold), seen.distribution(without=fold)
        np.testing.assert_array_equal(own.counts + rest.counts, every.counts)
        part = [batch for index, batch in enumerate(batches) if index % folds == fold]
        assert own.empty if not part else (own.low, own.high) == (whole(part).min(), whole(part).max())


@given(BATCHES)
def test_a_moving_average_is_the_mean_of_samples_extremes_at_first(batches):
    seen = observed(batches).distribution()
    expected = [np.mean([np.float64(np.float32(pick(batch))) for batch in batches]) for pick in (min, max)]
    np.testing.assert_allclose([seen.mean_low, seen.mean_high], expected, rtol=1e-9, atol=1e-6)


def test_a_moving_average_forgets_in_the_long_run():
    lows = np.concatenate([np.zeros(MEMORY), np.full(500, -1.0)])
    seen, expected = Statistics(), 0.0
    for index, low in enumerate(lows):
        seen.observe(low, 1.0, np.empty(0, np.float32))
        expected += (low - expected) / min(index + 1, MEMORY)
    assert seen.distribution().mean_low == pytest.approx(expected)
    assert expected < -0.99
    assert seen.distribution().mean_high == 1


def test_memory_is_the_same_after_any_number_of_samples():
    seen = observed([[(-2.0) ** power] for power in range(40)], bins=128)
    assert seen.counts.shape == (1, 128)
    assert seen.counts.sum() == 40


@pytest.mark.parametrize("value", [0.0, -3.5, 1e-40, 3e38, -3e38])
def test_a_constant(value):
    seen = observed([np.full(4, value)] * 3).distribution()
    assert seen.low == seen.high == np.float32(value)
    assert seen.quantile(0.3) == np.float32(value)
    assert seen.total == 12


def test_the_whole_range_of_floats_does_not_overflow():
    seen = observed([[-3.4e38, 0.0, 3.4e38]]).distribution()
    assert seen.total == 3
    assert np.isfinite(seen.quantile(0.5))


def test_nothing_seen_is_empty():
    seen = Statistics(2).distribution()
    assert seen.empty
    assert seen.quantile(0.5) == 0


def test_drawn_values_stand_for_many_and_extremes_for_themselves():
    seen = Statistics()
    seen.observe(-10.0, 20.0, np.array([0.0, 1.0, 2.0, 20.0], np.float32), 100.0)
    found = seen.distribution()
    at = {value: found.counts[int((value - found.start) / found.width)] for value in (-10.0, 0.0, 1.0, 20.0)}
    assert at == {-10.0: 1, 0.0: 100, 1.0: 100, 20.0: 1}
    assert found.zeros == 100


def test_an_extreme_that_many_share_is_left_as_drawn():
    seen = Statistics()
    seen.observe(0.0, 6.0, np.array([0.0, 0.0, 3.0, 6.0, 6.0, 6.0], np.float32), 10.0)
    found = seen.distribution()
    assert found.counts[0] == 20
    assert found.counts[-1] + found.counts[-2] == 30


@given(BATCHES, st.integers(8, 300))
def test_aligned_bins_hold_every_value_but_zeros_and_have_an_edge_at_zero(batches, bins):
    values = whole(batches).astype(np.float64)
    found = observed(batches).distribution().aligned(bins)
    assert found.counts.sum() == pytest.approx(np.sum(values != 0))
    assert found.edges[found.zero] == 0
    assert found.magnitudes().counts.sum() == pytest.approx(found.counts.sum())
    if found.width:
        assert found.edges[0] <= min(values.min(), 0) + found.width * 1e-6
        assert found.edges[-1] >= max(values.max(), 0) - found.width * 1e-6
