"""Fixed point and levels against the formulas written out in numpy and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from compression.quantization.uniform.coding import fixed_point, levels

WEIGHTS = arrays(np.float32, st.integers(1, 40), elements=st.floats(-8, 8, width=32, allow_subnormal=False))


def test_fixed_point_by_hand():
    made = fixed_point(np.array([0.0, 0.3, -0.3, 1.0, 0.0625, 0.1875], np.float32), 8, 3)
    # 0.3 * 8 = 2.4, 0.0625 * 8 = 0.5 and 0.1875 * 8 = 1.5: ties go to the even neighbour.
    assert made.values().tolist() == [0.0, 0.25, -0.25, 1.0, 0.0, 0.25]
    assert (made.bits, made.saturated) == (8, 0)


def test_what_does_not_fit_saturates_and_is_counted():
    made = fixed_point(np.array([100.0, -100.0, 15.875, -16.0], np.float32), 8, 3)
    assert made.values().tolist() == [15.875, -16.0, 15.875, -16.0]
    assert made.saturated == 2


@given(WEIGHTS, st.integers(2, 16), st.integers(-3, 20))
def test_fixed_point_is_the_formula(weight, bits, fraction):
    expected = np.clip(
        np.round(weight.astype(np.float64) * 2.0**fraction), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    )
    made = fixed_point(weight, bits, fraction)
    np.testing.assert_array_equal(made.values(), (expected / 2.0**fraction).astype(np.float32))
    assert int(made.codes.max()) < 2**bits


@given(WEIGHTS, st.integers(2, 16))
def test_the_point_is_put_where_nothing_overflows_and_no_further(weight, bits):
    made = fixed_point(weight, bits)
    assert made.saturated == 0
    peak = float(np.abs(weight.astype(np.float64)).max())
    if peak:
        finer = np.rint(peak / float(made.scale) * 2)
        assert finer > 2 ** (bits - 1) - 1 or made.scale == np.float32(2.0**-126)


def test_levels_by_hand():
    weight = np.array([0.0, 0.49, -0.51, 1.0, -1.0, 0.75], np.float32)
    assert levels(weight, 4).values().tolist() == [0.0, 0.25, -0.5, 1.0, -1.0, 0.75]
    assert levels(weight, 4, rounding="nearest").values().tolist() == [0.0, 0.5, -0.5, 1.0, -1.0, 0.75]
    # From -1 up in steps of 2 / 4.
    assert levels(weight, 4, "offset").values().tolist() == [0.0, 0.0, -1.0, 1.0, -1.0, 0.5]


@given(WEIGHTS, st.integers(1, 300))
def test_levels_are_the_formula(weight, count):
    wide = weight.astype(np.float64)
    peak = np.abs(wide).max()
    expected = np.sign(wide) * np.floor(np.abs(wide) / (peak or 1) * count) * peak / count
    made = levels(weight, count)
    np.testing.assert_allclose(made.values(), expected, rtol=1e-5, atol=1e-5 * peak)
    assert (made.values()[weight == 0] == 0).all()
    assert int(made.codes.max()) < 2**made.bits


@given(WEIGHTS, st.integers(2, 300))
def test_nearest_errs_by_half_a_level_at_most(weight, count):
    made = levels(weight, count, "offset", "nearest")
    span = float(weight.max()) - float(weight.min())
    assert np.abs(made.values() - weight).max() <= span / count / 2 + 1e-5 * np.abs(weight).max()


@pytest.mark.parametrize("signs", ["kept", "offset"])
def test_constant_tensors_come_back(signs):
    for value in (0.0, 3.5, -2.25):
        weight = np.full((3, 2), value, np.float32)
        np.testing.assert_allclose(levels(weight, 5, signs).values(), weight)
        assert np.abs(fixed_point(weight, 8).values() - weight).max() == 0.0
