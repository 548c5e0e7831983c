"""What rounding costs: the squared error of a layer's outputs, from the second moments of its inputs.

With H = X^T X over calibration rows X of shape (count, K), the outputs X W^T change by X E^T for an error
E = W - Q of shape (rows, K), and ||X E^T||^2 = trace(E H E^T): the rows themselves are not needed.
"""

import numpy as np
from numpy.typing import NDArray

from compression.quantization.rounding.blocks import Floats, strips


def output_energy(matrix: Floats, moments: NDArray[np.floating]) -> float:
    """trace(M H M^T), summed in float64 over rows."""
    whole = moments.astype(np.float32, copy=False)
    total = 0.0
    for part in strips(matrix.shape):
        total += float(np.einsum("rk,rk->", matrix[part] @ whole, matrix[part], dtype=np.float64))
    return max(total, 0.0)


def relative_error(weight: Floats, rounded: Floats, moments: NDArray[np.floating]) -> float:
    """||X (W - Q)^T|| / ||X W^T||; 0 where the outputs are all zero and stay so."""
    noise, signal = output_energy(weight - rounded, moments), output_energy(weight, moments)
    if noise == 0:
        return 0.0
    return float(np.sqrt(noise / signal)) if signal > 0 else float("inf")
