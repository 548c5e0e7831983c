"""Squared errors against quantizing actual values with numpy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compression.quantization.affine import Range, dequantize, from_range, quantize
from compression.quantization.ranges.distribution import Bins
from compression.quantization.ranges.error import Integers, least_error_ends, range_error, squared_error

TYPES = [
    Integers(dtype=np.uint8),
    Integers(dtype=np.int8),
    Integers(dtype=np.int8, centred=True),
    Integers(dtype=np.uint8, centred=True),
    Integers(dtype=np.int16),
]


def actual(values, bounds, integers):
    parameters = from_range(bounds, integers.dtype, centred=integers.centred)
    restored = dequantize(quantize(values, parameters), parameters)
    return float(np.sum((values.astype(np.float64) - restored) ** 2))


@pytest.mark.parametrize("integers", TYPES, ids=str)
@settings(max_examples=25)
@given(low=st.floats(-8, 1), high=st.floats(-1, 8))
def test_error_of_even_values_is_the_actual_one(integers, low, high):
    bins = Bins(counts=np.arange(1.0, 41.0), width=0.25, zero=15)
    inside = (np.arange(400) + 0.5) / 400
    points = (bins.edges[:-1, None] + 0.25 * inside).astype(np.float32)
    if high - low < 0.5:
        high = low + 0.5
    bounds = Range(low=low, high=high)
    errors = [actual(row, bounds, integers) / 400 for row in points]
    expected = float(np.array(errors) @ bins.counts)
    # 400 points stand for an integral over bins of a few steps each, and scales are float32 there.
    assert range_error(bins, bounds, integers) == pytest.approx(expected, rel=0.02, abs=1e-6)


@pytest.mark.parametrize("integers", TYPES[:3], ids=str)
@pytest.mark.parametrize("kind", ["normal", "laplace", "one-sided", "far"])
def test_the_range_is_within_a_hundredth_of_the_best(integers, kind):
    rng = np.random.default_rng(3)
    values = {
        "normal": rng.normal(size=100_000),
        "laplace": rng.laplace(size=100_000) + 1,
        "one-sided": np.abs(rng.standard_t(4, size=100_000)),
        "far": rng.normal(size=100_000) - 30,
    }[kind]
    low, high = min(values.min(), 0), max(values.max(), 0)
    width = (high - low) / 512
    zero = round(-low / width)
    counts = np.histogram(values, width * (np.arange(513) - zero))[0].astype(float)
    bins = Bins(counts=counts, width=width, zero=zero)
    if integers.centred:
        bins = bins.magnitudes()
    edges = bins.edges
    first, last = least_error_ends(bins, integers)
    found = squared_error(bins, edges[[first]], edges[[last]], integers)[0]
    firsts, lasts = np.mgrid[0 : bins.zero + 1 : 4, max(bins.zero, 1) : bins.counts.size + 1 : 4].reshape(
        2, -1
    )
    chunks = np.array_split(np.arange(firsts.size), 40)
    best = min(
        squared_error(bins, edges[firsts[c]], edges[lasts[c]], integers).min() for c in chunks if c.size
    )
    assert found <= best * 1.01


def test_zero_width_makes_no_error():
    assert range_error(Bins(counts=np.zeros(1), width=0.0, zero=0), Range(low=0, high=0), TYPES[0]) == 0
