"""Second moments, batch by batch."""

import numpy as np
import pytest

from compression.quantization.narrow import moments as module
from compression.quantization.narrow.moments import Moments


def rows(count, width=12, seed=0):
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


def test_batches_add_up_to_the_whole(monkeypatch):
    monkeypatch.setattr(module, "_ROWS", 7)
    seen = Moments(width=12)
    for seed in range(5):
        seen.add(rows(10, seed=seed), aside=seed == 3)
    kept = np.concatenate([rows(10, seed=seed) for seed in (0, 1, 2, 4)]).astype(np.float64)
    np.testing.assert_allclose(seen.fit, kept.T @ kept, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(seen.magnitudes, np.abs(kept).sum(axis=0), rtol=1e-6)
    aside = rows(10, seed=3).astype(np.float64)
    np.testing.assert_allclose(seen.judge, aside.T @ aside, rtol=1e-5, atol=1e-4)
    assert (seen.fit_rows, seen.judge_rows, seen.usable) == (40, 10, True)


def test_few_batches_give_every_fourth_row_to_the_judge():
    seen = Moments(width=12)
    seen.split(rows(9))
    assert (seen.fit_rows, seen.judge_rows) == (7, 2)
    np.testing.assert_allclose(seen.judge, rows(9)[3::4].T @ rows(9)[3::4], rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_spoils_them(bad):
    seen, data = Moments(width=12), rows(10)
    data[4, 5] = bad
    with np.errstate(invalid="ignore"):
        seen.add(data, aside=False)
    assert seen.spoilt and not seen.usable


def test_nothing_but_zeros_is_of_no_use():
    seen = Moments(width=12)
    seen.split(0 * rows(20))
    assert not seen.usable
