"""AWQ: inputs that carry much get a finer grid, by scaling their weights up and the inputs down.

Lin et al. 2023, AWQ (arXiv:2306.00978), section 3.2: Q(W diag(s)) diag(s)^-1 X with s = (mean |x|)^alpha and
alpha from a grid, equation 5, by the error of the outputs. With all s equal it is rounding to nearest.
"""

import numpy as np

from compression.quantization.rounding.blocks import Doubles, Floats, Scheme
from compression.quantization.rounding.objective import output_energy
from compression.quantization.rounding.rtn import round_to_nearest

ALPHAS = tuple(float(alpha) for alpha in np.linspace(0.0, 1.0, 11))
_LEAST = 1e-4


def find_scales(
    weight: Floats, scheme: Scheme, moments: Doubles, magnitudes: Doubles, *, gain: float = 0.98
) -> Floats | None:
    """The scales s of the inputs that leave the least output error when W diag(s) is rounded to nearest.

    Args:
        weight: float32 (rows, K): rows of every layer that reads the input, or some of them.
        scheme: codes and blocks.
        moments: H = X^T X, (K, K).
        magnitudes: mean |x| of each input, (K,).
        gain: the share of the unscaled error that must be undercut for scales to be worth their cost.

    Returns:
        float32 (K,); None where no scales bring enough.
    """
    errors = {}
    for alpha in ALPHAS:
        scales = input_scales(magnitudes, alpha)
        tried = round_to_nearest(weight * scales, scheme).values() / scales
        errors[alpha] = output_energy(weight - tried, moments)
    best = min(errors, key=lambda alpha: errors[alpha])
    return input_scales(magnitudes, best) if errors[best] < gain * errors[0.0] else None


def input_scales(magnitudes: Doubles, alpha: float) -> Floats:
    """s = m^alpha, divided by the geometric mean of its extremes so that neither side grows out of range."""
    level = np.maximum(magnitudes / max(float(magnitudes.max()), 1e-30), _LEAST) ** alpha
    scales: Floats = (level / np.sqrt(level.max() * level.min())).astype(np.float32)
    return scales
