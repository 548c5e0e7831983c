"""Rounding to the nearest code: against loops by hand, and properties that hold for any weights."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from compression.quantization.rounding import blocks
from compression.quantization.rounding.blocks import Grid, Scheme, decode, encode
from compression.quantization.rounding.grids import grid_of_extremes, searched_grid
from compression.quantization.rounding.rtn import round_to_nearest
from tests.compression.quantization.rounding.matrices import by_hand, matrix

SCHEMES = st.builds(
    Scheme,
    bits=st.integers(2, 8),
    block=st.one_of(st.none(), st.sampled_from([8, 16, 32])),
    symmetric=st.booleans(),
)
# Subnormal weights fall below the least scale and become 0, as a test of its own says.
NORMAL = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)
WEIGHTS = arrays.arrays(
    np.float32,
    arrays.array_shapes(min_dims=2, max_dims=2, max_side=40),
    elements=NORMAL,
    fill=st.just(np.float32(0)),
)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("block", [None, 16, 32])
@pytest.mark.parametrize("symmetric", [True, False])
def test_codes_and_values_are_those_by_hand(bits, block, symmetric):
    scheme = Scheme(bits=bits, block=block, symmetric=symmetric)
    made = round_to_nearest(matrix(), scheme)
    codes, values = by_hand(matrix(), scheme)
    np.testing.assert_array_equal(made.codes, codes)
    np.testing.assert_array_equal(made.values(), values)


@given(weight=WEIGHTS, scheme=SCHEMES)
def test_codes_fit_their_bits_and_errors_their_steps(weight, scheme):
    made = round_to_nearest(weight, scheme)
    step = np.abs(blocks.spread(made.grid.scale, scheme, weight.shape[1])).astype(np.float64)
    assert int(made.codes.max()) <= scheme.top
    assert made.grid.scale.dtype == np.float32
    assert (made.grid.scale != 0).all() and np.isfinite(made.grid.scale).all()
    error = np.abs(made.values().astype(np.float64) - weight)
    # Half a step; and as much again where a zero point was rounded, or at the end that a symmetric grid lacks.
    assert (error <= step * 1.0001).all()


@given(weight=WEIGHTS, scheme=SCHEMES)
def test_zero_stays_zero(weight, scheme):
    made = round_to_nearest(weight, scheme)
    assert (made.values()[weight == 0] == 0).all()


@given(weight=WEIGHTS, scheme=SCHEMES)
def test_rounding_again_changes_nothing(weight, scheme):
    made = round_to_nearest(weight, scheme)
    np.testing.assert_array_equal(encode(made.values(), made.grid), made.codes)


@given(value=st.floats(2.0**-60, 2.0**100, width=32), sign=st.sampled_from([-1, 1]), scheme=SCHEMES)
def test_a_constant_matrix_comes_back(value, sign, scheme):
    weight = np.full((3, 20), sign * value, np.float32)
    np.testing.assert_allclose(round_to_nearest(weight, scheme).values(), weight, rtol=1e-6)


def test_ties_go_to_the_even_step():
    grid = Grid(
        scheme=Scheme(bits=4, block=None, symmetric=True),
        scale=np.ones((1, 1), np.float32),
        zero_point=np.full((1, 1), 8, np.uint8),
    )
    weight = np.array([[-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 100, -100]], np.float32)
    np.testing.assert_array_equal(encode(weight, grid)[0].astype(int) - 8, [-2, -2, 0, 0, 2, 2, 7, -8])


def test_the_farthest_weight_takes_the_lowest_code():
    scheme = Scheme(bits=4, block=4, symmetric=True)
    weight = np.array([[0.1, 0.2, -0.8, 0.3, 0.1, 0.2, 0.8, 0.3]], np.float32)
    made = round_to_nearest(weight, scheme)
    assert made.codes[0, 2] == 0 and made.codes[0, 6] == 0
    np.testing.assert_allclose(made.grid.scale, [[0.1, -0.1]], rtol=1e-6)
    np.testing.assert_allclose(made.values(), weight, atol=1e-7)


def test_weights_too_small_for_a_scale_become_zero():
    weight = np.full((1, 16), 1e-42, np.float32)
    assert (round_to_nearest(weight, Scheme(bits=4, block=16, symmetric=False)).values() == 0).all()


def test_strips_give_what_the_whole_gives(monkeypatch):
    scheme = Scheme(bits=3, block=16, symmetric=False)
    weight = matrix(50, 40)
    whole = round_to_nearest(weight, scheme), searched_grid(weight, scheme)
    monkeypatch.setattr(blocks, "_STRIP_ELEMENTS", 160)
    parts = round_to_nearest(weight, scheme), searched_grid(weight, scheme)
    np.testing.assert_array_equal(parts[0].codes, whole[0].codes)
    np.testing.assert_array_equal(parts[1].scale, whole[1].scale)
    np.testing.assert_array_equal(parts[0].values(), whole[0].values())


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_a_searched_grid_is_never_worse_by_its_own_measure(bits, symmetric):
    scheme = Scheme(bits=bits, block=32, symmetric=symmetric)
    weight = matrix(40, 96, seed=3)
    importance = np.random.default_rng(1).exponential(size=96)
    grids = grid_of_extremes(weight, scheme), searched_grid(weight, scheme, importance)
    plain, searched = (
        float(np.sum(importance * (decode(encode(weight, grid), grid) - weight) ** 2)) for grid in grids
    )
    assert searched <= plain * (1 + 1e-5)
    if bits < 4:
        assert searched < 0.9 * plain
