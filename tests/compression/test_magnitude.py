"""Streaming selection against a plain sort."""

import ml_dtypes
import numpy as np
import pytest

from compression import magnitude
from compression.magnitude import smallest


def pieces(array: np.ndarray, size: int = 100) -> magnitude.Reader:
    return lambda: np.split(array.ravel(), range(size, array.size, size))


def chosen(arrays: list[np.ndarray], count: int) -> list[np.ndarray]:
    wide = any(array.dtype == np.float64 for array in arrays)
    cut = smallest([pieces(array) for array in arrays], count, wide=wide)
    return [cut.mask(array, index) for index, array in enumerate(arrays)]


def by_sorting(arrays: list[np.ndarray], count: int) -> list[np.ndarray]:
    """The same by a stable sort of all magnitudes at once."""
    flat = np.concatenate([np.abs(array.astype(np.float64)).ravel() for array in arrays])
    mask = np.zeros(flat.size, bool)
    mask[np.argsort(flat, kind="stable")[:count]] = True
    parts = np.split(mask, np.cumsum([array.size for array in arrays])[:-1])
    return [part.reshape(array.shape) for part, array in zip(parts, arrays, strict=True)]


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999, 1.0])
def test_same_as_sorting(dtype: type, share: float) -> None:
    rng = np.random.default_rng(1)
    arrays = [rng.normal(size=(40, 30)).astype(dtype), rng.normal(size=(7, 11)).astype(dtype) * dtype(0.1)]
    count = round(share * sum(array.size for array in arrays))
    found = chosen(arrays, count)
    assert sum(int(mask.sum()) for mask in found) == count
    for mask, expected in zip(found, by_sorting(arrays, count), strict=True):
        np.testing.assert_array_equal(mask, expected)


def test_types_are_compared_by_value() -> None:
    arrays = [np.array([0.5, 4], np.float16), np.array([0.25, 3], np.float32), np.array([1e-40, 1e300])]
    assert [mask.tolist() for mask in chosen(arrays, 3)] == [[True, False], [True, False], [True, False]]


def test_ties_go_to_the_first_and_the_count_is_exact() -> None:
    arrays = [np.ones((2, 3), np.float32), -np.ones(4, np.float32)]
    assert [mask.ravel().tolist() for mask in chosen(arrays, 7)] == [[True] * 6, [True, False, False, False]]


def test_zeros_count_and_nan_stays() -> None:
    array = np.array([np.nan, 0.0, -0.0, 1.0, np.inf, 1e-45], np.float32)
    assert chosen([array], 3)[0].tolist() == [False, True, True, False, False, True]
    assert chosen([array], 5)[0].tolist() == [False, True, True, True, True, True]


def test_pieces_make_no_difference() -> None:
    array = np.random.default_rng(2).integers(-3, 4, size=(50, 9)).astype(np.float32)
    cuts = [smallest([pieces(array, size)], 200, wide=False) for size in (7, 450)]
    assert cuts[0] == cuts[1]


def test_threshold_is_the_magnitude_of_the_cut() -> None:
    array = np.array([3.0, -1.0, 2.0], np.float32)
    assert smallest([pieces(array)], 2, wide=False).threshold == 2.0
    assert smallest([pieces(array)], 1, wide=True).threshold == 1.0
