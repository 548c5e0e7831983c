"""Which weights stay: exactly as many as asked for, the same ones on every run."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from compression.pruning.scores import Scores

Scope = Literal["global", "layer"]
Ramp = Literal["linear", "cubic"]


def keep_largest(
    scores: Scores, zero: Mapping[str, Tensor], sparsity: float, scope: Scope
) -> dict[str, Tensor]:
    """By name a mask that is True where a weight stays.

    Exactly round(sparsity * size) leave, of all tensors together or of each; among equal scores the earlier ones.
    What is zero already leaves first, so that it counts towards the target.

    Args:
        scores: of each weight.
        zero: True where a weight is zero already.
        sparsity: share that leaves.
        scope: one ranking of all, or one for each tensor.
    """
    ranked = {
        name: torch.where(zero[name], -1.0, score).reshape(-1).numpy() for name, score in scores.items()
    }
    if scope == "layer":
        kept = {name: _kept(values, round(sparsity * values.size)) for name, values in ranked.items()}
    else:
        together = np.concatenate(list(ranked.values()))
        parts = np.split(_kept(together, round(sparsity * together.size)), _ends(ranked))
        kept = dict(zip(ranked, parts, strict=True))
    return {name: torch.from_numpy(mask.copy()).reshape(scores[name].shape) for name, mask in kept.items()}


def keep_above(scores: Scores, zero: Mapping[str, Tensor], threshold: float) -> dict[str, Tensor]:
    """By name a mask that is True where the score reaches the threshold and the weight is not zero already."""
    return {name: (score >= threshold) & ~zero[name] for name, score in scores.items()}


def sparsity_of_round(number: int, rounds: int, begin: float, end: float, ramp: Ramp) -> float:
    """s_t = s_f + (s_0 - s_f) * (1 - t / n)^3 (Zhu and Gupta 2017, arXiv:1710.01878, equation 1); linear without
    the power. `number` is t, from 1 to `rounds`."""
    left = 1 - number / rounds
    return end + (begin - end) * (left**3 if ramp == "cubic" else left)


def _kept(values: np.ndarray, count: int) -> np.ndarray:
    """All but the `count` smallest."""
    kept = np.ones(values.size, bool)
    if count:
        edge = np.partition(values, count - 1)[count - 1]
        below = values < edge
        kept[below] = False
        kept[np.flatnonzero(values == edge)[: count - int(below.sum())]] = False
    return kept


def _ends(ranked: Mapping[str, np.ndarray]) -> np.ndarray:
    ends: np.ndarray = np.cumsum([values.size for values in ranked.values()])[:-1]
    return ends
