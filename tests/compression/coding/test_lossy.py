"""Grids under a bound: the bound holds to the last digit, and the bits are near what rate-distortion theory allows."""

import ml_dtypes
import numpy as np
import pytest

from compression.coding.lossy import Bound, Grid, coarsest, max_error, sqnr_db


@pytest.mark.parametrize("kind", [np.float32, np.float16, np.float64, ml_dtypes.bfloat16], ids=str)
@pytest.mark.parametrize("bound", [Bound(kind="max_error", value=0.01), Bound(kind="min_sqnr_db", value=25)])
def test_the_bound_holds_in_every_type(kind: type, bound: Bound) -> None:
    weights = np.random.default_rng(0).normal(0, 0.1, (50, 40)).astype(kind)
    grid = coarsest(weights, bound)
    assert grid is not None
    rounded = grid.rounded(weights)
    assert rounded.dtype == weights.dtype
    noise = rounded.astype(np.float64) - weights.astype(np.float64)
    if bound.kind == "max_error":
        assert 0.5 * bound.value < np.abs(noise).max() <= bound.value
    else:
        reached = 10 * np.log10(np.square(weights.astype(np.float64)).sum() / np.square(noise).sum())
        assert bound.value <= reached < bound.value + 0.5
        assert reached == pytest.approx(sqnr_db(weights, rounded))
    assert max_error(weights, rounded) == np.abs(noise).max()


@pytest.mark.parametrize("db", [10, 20, 30])
def test_bits_are_near_the_bound_of_shannon(db: float) -> None:
    """A Gaussian source needs db / 6.02 bits; a uniform grid at high rates 0.254 more (Gish and Pierce 1968)."""
    weights = np.random.default_rng(1).normal(size=200_000).astype(np.float32)
    grid = coarsest(weights, Bound(kind="min_sqnr_db", value=db))
    assert grid is not None
    bound = db / (20 * np.log10(2))
    assert bound < grid.bits(weights) < bound + 0.27


def test_a_wider_zone_takes_fewer_bits_where_weights_are_peaked() -> None:
    weights = np.random.default_rng(2).laplace(size=100_000).astype(np.float32)
    bound = Bound(kind="min_sqnr_db", value=8)
    grid = coarsest(weights, bound)
    assert grid is not None and grid.zone > 0
    plain = min(
        (Grid(step=np.float32(step), zone=0.0) for step in np.linspace(0.5, 3, 400)),
        key=lambda made: abs(sqnr_db(weights, made.rounded(weights)) - 8),
    )
    assert grid.bits(weights) < plain.bits(weights) - 0.02


def test_what_cannot_be_coarser_is_left() -> None:
    rng = np.random.default_rng(3)
    weights = rng.normal(size=1000).astype(np.float32)
    assert coarsest(weights, Bound(kind="max_error", value=1e-9)) is None
    assert coarsest(np.zeros(10, np.float32), Bound(kind="min_sqnr_db", value=20)) is None
    assert coarsest(weights.astype(np.float16), Bound(kind="max_error", value=1e-5)) is None
