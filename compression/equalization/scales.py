"""The scales themselves: numpy only."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from compression.equalization.parts import Doubles

DEAD = 1e-5
"""Channels this much smaller than the largest have no range worth a scale: it would blow up their biases."""


def cross_layer(made: Doubles, read: Doubles) -> Doubles:
    """s_i = sqrt(r1_i r2_i) / r2_i, which makes both layers' ranges the same (Nagel et al. 2019, equation 11).

    Args:
        made: r1, max|w| by output channel of the layer that is divided by s, of shape (channels,).
        read: r2, max|w| by input channel of the layer that is multiplied by s.

    Dead channels keep scale 1.
    """
    return _where_both(made, read, lambda r1, r2: np.sqrt(r1 * r2) / r2)


def smooth(activations: Doubles, weights: Doubles, alpha: float) -> Doubles:
    """s_j = max|X_j|^alpha / max|W_j|^(1 - alpha) (Xiao et al. 2023, equation 4).

    Args:
        activations: max|X_j| by channel, of shape (channels,), over the calibration data.
        weights: max|W_j| by input channel, over all layers that read X.
        alpha: how much of the difficulty moves from activations to weights, in 0..1.

    Dead channels keep scale 1.
    """
    return _where_both(activations, weights, lambda x, w: x**alpha / w ** (1 - alpha))


def _where_both(one: Doubles, other: Doubles, formula: Callable[[Doubles, Doubles], Doubles]) -> Doubles:
    known = _alive(one) & _alive(other)
    scales: Doubles = np.ones(one.shape)
    scales[known] = formula(one[known], other[known])
    return scales


def _alive(sizes: Doubles) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = np.isfinite(sizes) & (
        sizes > DEAD * sizes.max(initial=0.0, where=np.isfinite(sizes))
    )
    return found
