"""Matrices and inputs for rounding, and the plain formulas it is held against."""

import numpy as np

from compression.quantization.rounding.blocks import Scheme


def matrix(rows=24, width=70, seed=0):
    return (np.random.default_rng(seed).normal(size=(rows, width)) * 0.1).astype(np.float32)


def inputs(count, width, seed=0):
    """Correlated rows of uneven strength, float32 (count, width)."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).normal(size=(width, width)) / np.sqrt(width)
    strength = np.exp(np.random.default_rng(98).normal(size=width) * 0.7)
    return (rng.normal(size=(count, width)) @ (mix * strength + 0.3 * np.eye(width))).astype(np.float32)


def moments(rows):
    return rows.astype(np.float64).T @ rows.astype(np.float64)


def by_hand(weight, scheme: Scheme):
    """Rounding to the nearest, block after block in Python loops: codes and values."""
    codes = np.zeros(weight.shape, np.uint8)
    values = np.zeros(weight.shape, np.float32)
    size = weight.shape[1] if scheme.block is None else scheme.block
    top, middle = 2**scheme.bits - 1, 2 ** (scheme.bits - 1)
    for row in range(weight.shape[0]):
        for start in range(0, weight.shape[1], size):
            part = weight[row, start : start + size].astype(np.float64)
            low, high = min(part.min(), 0.0), max(part.max(), 0.0)
            if scheme.symmetric:
                scale = np.float32((low if -low >= high else high) / -middle) or np.float32(1)
                zero = middle
            else:
                scale = np.float32((high - low) / top) or np.float32(1)
                zero = int(np.clip(np.rint(-low / scale), 0, top))
            for place, value in enumerate(weight[row, start : start + size]):
                code = int(np.clip(np.rint(np.float32(value) / scale) + zero, 0, top))
                codes[row, start + place] = code
                values[row, start + place] = np.float32(code - zero) * scale
    return codes, values
