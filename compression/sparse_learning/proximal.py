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
SMALLEST = 1e-18
"""Its square is still a float32."""

Size = Tensor | float


def soft_threshold(values: Tensor, by: Size) -> Tensor:
    """sign(v) max(|v| - by, 0): of h = strength * sum |v|, with by = s * strength (Parikh and Boyd 2014, 6.5.2)."""
    return torch.where(values.abs() > by, values - values.sign() * by, torch.zeros_like(values))


def ridge(values: Tensor, by: Size) -> Tensor:
    """v / (1 + by): of h = strength / 2 * sum v^2. It makes no zeros."""
    return values / (1 + by)


def group_norms(groups: Sequence[tuple[Tensor, Size]], strength: float) -> Tensor:
    """The norm of each group after the proximal step of h = strength * |w|, [groups]; 0 where it vanishes.

    With sizes s_i the result is v_i = w_i r / (r + strength s_i), where its norm r solves
    sum (w_i / (r + strength s_i))^2 = 1; there is none above 0, and the group is zero, where the sum at 0 is 1 or
    less. Newton's method on one over the root of that sum begins at |w| - strength max(s), below the solution,
    and never passes it.

    Args:
        groups: pieces of all groups, values [groups, n], with sizes of that shape or one number.
        strength: of the penalty.
    """
    before = torch.stack([values.square().sum(dim=1) for values, _ in groups]).sum(dim=0).sqrt()
    sizes = {size for _, size in groups if not isinstance(size, Tensor)}
    if len(sizes) == 1 and not any(isinstance(size, Tensor) for _, size in groups):
        return (before - strength * sizes.pop()).clamp(min=0)
    largest = torch.stack([_largest(size, before) for _, size in groups]).amax(dim=0)
    alive = _sums(groups, strength, torch.zeros_like(before), 2) > 1
    norms = (before - strength * largest).clamp(min=0)
    for _ in range(ROUNDS):
        squares, cubes = (_sums(groups, strength, norms, power) for power in (2, 3))
        norms = norms + squares * (squares.sqrt() - 1) / cubes.clamp(min=SMALLEST)
    # Where sizes are too small to be told from nothing, so is the step.
    norms = torch.where(torch.isfinite(norms) & (norms > 0), norms, before)
    return torch.where(alive, norms, torch.zeros_like(norms))


def _largest(size: Size, like: Tensor) -> Tensor:
    return size.amax(dim=1) if isinstance(size, Tensor) else torch.full_like(like, size)


def _sums(groups: Sequence[tuple[Tensor, Size]], strength: float, norms: Tensor, power: int) -> Tensor:
    """sum w^2 / (r + strength s)^power of each group, power being 2 or 3."""
    total = torch.zeros_like(norms)
    for values, size in groups:
        held = (norms[:, None] + strength * size).clamp(min=SMALLEST)
        terms = (values / held).square()
        total += (terms if power == 2 else terms / held).sum(dim=1)
    return total
