"""Scales against the papers' formulas by hand."""

import numpy as np

from compression.equalization.scales import cross_layer, smooth


def test_cross_layer_makes_both_ranges_the_geometric_mean() -> None:
    made, read = np.array([8.0, 1.0]), np.array([2.0, 9.0])
    scales = cross_layer(made, read)
    np.testing.assert_allclose(scales, [2.0, 1 / 3])
    np.testing.assert_allclose(made / scales, [4.0, 3.0])
    np.testing.assert_allclose(read * scales, [4.0, 3.0])


def test_smooth_is_the_formula() -> None:
    found = smooth(np.array([16.0, 4.0]), np.array([4.0, 1.0]), 0.5)
    np.testing.assert_allclose(found, [4 / 2, 2 / 1])
    np.testing.assert_allclose(smooth(np.array([16.0]), np.array([4.0]), 1.0), [16.0])
    np.testing.assert_allclose(smooth(np.array([16.0]), np.array([4.0]), 0.0), [0.25])


def test_channels_of_zeros_keep_scale_one() -> None:
    zero, some = np.array([0.0, 2.0, 0.0]), np.array([3.0, 0.0, 0.0])
    for found in (cross_layer(zero, some), smooth(zero, some, 0.5)):
        np.testing.assert_array_equal(found, [1, 1, 1])


def test_nearly_dead_channels_keep_scale_one() -> None:
    np.testing.assert_array_equal(cross_layer(np.array([1e-7, 1.0]), np.array([1.0, 1.0])), [1, 1])
    assert cross_layer(np.array([1e-3, 1.0]), np.array([1.0, 1.0]))[0] < 0.1
