"""What int8 weights hold under ever better models of them: `python -m benchmarks.packing_bound MODEL.onnx ...`.

Bytes of all int8 tensors of 4096 weights or more, without those in which a coder would say what its model is: the
weights; the order-0 entropy of each tensor; under a density of one shape, spread by rows, columns and taps; the same of
what linear prediction within kernels leaves; and with what a Gaussian would gain over the second of these that knows
all correlations between the weights of a row, and learns them from the rows before.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

_LEAST = 4096
_POWERS = (2, 3, 4, 8, 16, 64)
_LEVELS = np.arange(-8, 33)
"""Of spread, in quarters of an octave."""
_PRIORS = (0.3, 1.0, 3.0)
_MOST_COLUMNS = 600


def entropy_bits(values: NDArray[np.int64]) -> float:
    counts = np.bincount(values & 255)
    counts = counts[counts > 0]
    return float(-(counts * np.log2(counts / len(values))).sum())


def spread_bits(kernels: NDArray[np.int64]) -> float:
    """[rows, kernels, taps] under Student's density, with the spread as a product over the axes."""
    levels = _spread(np.abs(kernels).astype(np.float64)).reshape(-1)
    values = np.arange(-128, 128)
    found = []
    for power in _POWERS:
        scales = 2.0 ** (_LEVELS / 4)
        chances = (1 + values**2 / (power * scales[:, None] ** 2)) ** -power + 2.0**-17
        bits = -np.log2(chances / chances.sum(axis=1, keepdims=True))
        for by in range(-2, 5):
            rows = np.clip(np.rint(4 * levels).astype(int) + by - _LEVELS[0], 0, len(_LEVELS) - 1)
            found.append(float(bits[rows, kernels.reshape(-1) + 128].sum()))
    return min(found)


def _spread(magnitudes: NDArray[np.float64]) -> NDArray[np.float64]:
    """log2 of the mean magnitude by row, kernel and tap."""
    factors = [np.ones(size) for size in magnitudes.shape]
    for _ in range(4):
        for axis in range(3):
            weights = 1 / np.multiply.outer(*(factors[other] for other in range(3) if other != axis))
            factors[axis] = (np.moveaxis(magnitudes, axis, 0) * weights).mean(axis=(1, 2)) + 0.02
    rows, inner, taps = (np.log2(factor) for factor in factors)
    return rows[:, None, None] + inner[:, None] + taps


def predicted(kernels: NDArray[np.int64]) -> NDArray[np.int64]:
    """What is left of each tap after least squares on the taps before it."""
    scaled = kernels / 2 ** _spread(np.abs(kernels).astype(np.float64))
    left = kernels.copy()
    for tap in range(1, kernels.shape[2]):
        before = scaled[:, :, :tap].reshape(-1, tap)
        weights = np.linalg.lstsq(before, scaled[:, :, tap].reshape(-1), rcond=None)[0]
        told = (before @ weights).reshape(kernels.shape[:2]) * (
            kernels[:, :, tap] / np.where(scaled[:, :, tap] == 0, 1, scaled[:, :, tap])
        )
        left[:, :, tap] -= np.rint(told).astype(np.int64)
    return (left + 128) % 256 - 128


def covariance_gain_bits(kernels: NDArray[np.int64]) -> float:
    rows = (kernels / 2 ** _spread(np.abs(kernels).astype(np.float64))).reshape(len(kernels), -1)
    size = rows.shape[1]
    if size > _MOST_COLUMNS:
        return 0.0
    rows = rows / (rows.std(axis=0) + 1e-9)
    seen, gain = np.zeros((size, size)), 0.0
    for block in np.array_split(np.arange(len(rows)), 8):
        part = rows[block]
        if block[0]:
            gain += max(_saved(seen, int(block[0]), part, prior * size) for prior in _PRIORS)
        seen += part.T @ part
    return gain / np.log(2)


def _saved(seen: NDArray[np.float64], count: int, part: NDArray[np.float64], prior: float) -> float:
    factor = np.linalg.cholesky((seen + prior * np.eye(len(seen))) / (count + prior))
    whitened = np.linalg.solve(factor, part.T)
    return float(((part**2).sum() - (whitened**2).sum()) / 2 - len(part) * np.log(np.diag(factor)).sum())


def figures(path: Path) -> NDArray[np.float64]:
    """Bytes: of the weights, by entropy, by spread, by prediction, by all correlations."""
    total = np.zeros(5)
    for tensor in onnx.load(path).graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype != np.int8 or array.size < _LEAST or array.ndim < 2:
            continue
        kernels = array.astype(np.int64).reshape(*array.shape[:2], -1)
        bits = [entropy_bits(array.astype(np.int64).reshape(-1)), spread_bits(kernels)]
        bits.append(min(bits[1], spread_bits(predicted(kernels))))
        bits.append(bits[1] - covariance_gain_bits(kernels))
        total += np.array([8 * array.size, *bits]) / 8
    return total


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(Path(name).name, *(f"{figure:,.0f}" for figure in figures(Path(name))), flush=True)
