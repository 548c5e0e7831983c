"""Divergences against a loop that follows the slides, bin by bin."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compression.quantization.ranges.distribution import Bins
from compression.quantization.ranges.entropy import Divergence, entropy_ends
from compression.quantization.ranges.search import best_ends


def slides(counts, first, last, levels):
    """Migacz 2017, slide 38, for the bins first..last - 1."""
    reference = counts[first:last].astype(float)
    inside = reference.copy()
    reference[0] += counts[:first].sum()
    reference[-1] += counts[last:].sum()
    quantized = np.zeros_like(inside)
    size = last - first
    for level in range(levels):
        group = slice(level * size // levels, (level + 1) * size // levels)
        filled = inside[group] > 0
        if filled.any():
            quantized[group] = np.where(filled, inside[group].sum() / filled.sum(), 0)
    if not inside.sum():
        return np.inf
    p, q = reference / reference.sum(), quantized / quantized.sum()
    if np.any((p > 0) & (q == 0)):
        return np.inf
    used = p > 0
    return float(np.sum(p[used] * np.log(p[used] / q[used])))


@given(st.integers(0, 2**32), st.integers(2, 8), st.floats(0.1, 1))
def test_divergence_is_that_of_the_slides(seed, levels, filled):
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 20, 40) * (rng.random(40) < filled).astype(float)
    first = int(rng.integers(0, 40 - levels))
    last = int(rng.integers(first + levels, 41))
    found = Divergence(counts, levels)(np.array([first]), np.array([last]))[0]
    if counts.sum():
        assert found == pytest.approx(slides(counts, first, last, levels), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("draw", ["laplace", "standard_normal"])
@pytest.mark.parametrize("sides", [1, 2])
def test_the_range_is_nearly_the_best_of_all(draw, sides):
    values = getattr(np.random.default_rng(1), draw)(size=200_000)
    if sides == 1:
        values = np.abs(values)
    counts, edges = np.histogram(values, 512)
    zero = int(np.searchsorted(edges, 0)) if sides == 2 else 0
    bins, levels = Bins(counts=counts.astype(float), width=edges[1] - edges[0], zero=zero), 64
    divergence = Divergence(bins.counts, levels)
    firsts, lasts = np.mgrid[0 : zero + 1 : 4, max(zero, levels) : 513 : 1].reshape(2, -1)
    wide = lasts - firsts >= levels
    best = divergence(firsts[wide], lasts[wide]).min()
    found = divergence(*(np.array([end]) for end in entropy_ends(bins, levels)))[0]
    whole = divergence(np.array([0]), np.array([512]))[0]
    # The divergence is rough in the ends; the search reaches most of what all ranges together offer.
    assert found <= best + 0.25 * (whole - best) + 1e-6


def test_what_lies_in_few_bins_is_kept_whole():
    counts = np.zeros(300)
    counts[[0, 299]] = 5
    assert entropy_ends(Bins(counts=counts, width=1.0, zero=0), 128) == (0, 300)


@given(st.integers(1, 60), st.integers(0, 60), st.data())
def test_a_search_over_a_bowl_finds_its_bottom(bins, zero, data):
    zero = min(zero, bins)
    first, last = data.draw(st.integers(0, zero)), data.draw(st.integers(zero, bins))

    def cost(firsts, lasts):
        return (firsts - first) ** 2.0 + (lasts - last) ** 2.0

    found = best_ends(cost, bins, zero, least=0, points=5)
    assert found == (first, last)


def test_equally_good_ranges_stay_wide():
    assert best_ends(lambda s, _: np.zeros(len(s)), 100, 40, least=10, points=9) == (0, 100)
