"""Proximal steps of the penalties, with one step size for all entries or one for each.

A step of sizes s on a penalty h moves w to argmin_v h(v) + sum (v - w)^2 / (2 s); zeros that come out are exact.
Sizes per entry are those of an adaptive optimizer (Yun et al. 2021, ProxGen, arXiv:2006.07065, equation 4): so the
penalty weighs as much beside the loss as it does under SGD, whatever the optimizer makes of gradients.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

ROUNDS = 6
"""Newton's steps for a group's norm; the function is almost straight, so they end at float32's precision."""

Size = Tensor | float


def soft_threshold(values: Tensor, by: Size) -> Tensor:
    """sign(v) max(|v| - by, 0): of h = strength * sum |v|, with by = s * strength (Parikh and Boyd 2014, 6.5.2)."""
    return torch.where(values.abs() > by, values - values.sign() * by, torch.zeros_like(values))


def ridge(values: Tensor, by: Size) -> Tensor:
    """v / (1 + by): of h = strength / 2 * sum v^2. It makes no zeros."""
    return values / (1 + by)


def group_norms(groups: Sequence[tuple[Tensor, Size]], strengths: float) -> Tensor:
    """The norm of each group after the proximal step of h = strength * |w|, [groups]; 0 where it vanishes.

    With sizes s_i the result is v_i = w_i r / (r + strength s_i), where its norm r solves
    sum (w_i / (r + strength s_i))^2 = 1; there is none above 0, and the group is zero, where the sum at 0 is 1 or
    less. Newton's method on one over the root of that sum comes from below and never passes the solution.

    Args:
        groups: pieces of all groups, values [groups, n], with sizes of that shape or one number.
        strengths: of the penalty.
    """
    norms = torch.zeros(len(groups[0][0]), dtype=groups[0][0].dtype, device=groups[0][0].device)
    alive = _sums(groups, strengths, norms, 2) > 1
    for _ in range(ROUNDS):
        squares, cubes = (_sums(groups, strengths, norms, power) for power in (2, 3))
        step = squares * (squares.sqrt() - 1) / cubes.clamp(min=torch.finfo(cubes.dtype).tiny)
        norms = torch.where(alive, norms + step, norms)
    return norms


def _sums(groups: Sequence[tuple[Tensor, Size]], strength: float, norms: Tensor, power: int) -> Tensor:
    """sum w^2 / (r + strength s)^power of each group."""
    total = torch.zeros_like(norms)
    for values, size in groups:
        total += (values.square() / (norms[:, None] + strength * size) ** power).sum(dim=1)
    return total
