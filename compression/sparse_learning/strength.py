"""How strong a penalty must be for a target: found while training goes on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from compression.magnitude import Cut, Reader, smallest
from compression.sparse_learning.parts import Optimizer, Part

RAMP = 0.7
"""Share of the steps over which the density falls to the target; the rest settles there."""
LOOKS = 200
"""How often in a training the density is looked at."""
GAIN = 0.5
LEAST = 1e-20
MOST = 2.0
"""A look changes the strength by this factor at most."""


def cut_of(lines: Sequence[Tensor], sparsity: float) -> Cut:
    """The cut that takes exactly this share of all entries together, the smallest; none that are infinite."""
    arrays = [line.cpu().numpy() for line in lines]
    most = sum(int(np.isfinite(array).sum()) for array in arrays)
    count = min(round(sparsity * sum(array.size for array in arrays)), most)
    wide = any(array.itemsize == 8 for array in arrays)
    return smallest([_reader(array) for array in arrays], count, wide=wide)


def _reader(array: npt.NDArray[Any]) -> Reader:
    return lambda: [array]


def ranks(part: Part) -> Tensor:
    """Magnitudes, of which the largest is infinite where one has to stay."""
    found = part.magnitudes()
    if part.needs_one:
        found[found.argmax()] = torch.inf
    return found


def density(parts: Sequence[Part]) -> float:
    """Share of the members that are not zero."""
    left = sum(int(part.magnitudes().count_nonzero()) for part in parts)
    return left / max(sum(part.size for part in parts), 1)


def first_strength(parts: Sequence[Part], optimizer: Optimizer, sparsity: float, steps: int) -> float:
    """What would shrink the right share to zero in so many steps if no gradient held against it."""
    threshold = cut_of([part.resistance(optimizer) for part in parts], sparsity).threshold
    return max(threshold / steps, LEAST)


@dataclass(frozen=True, kw_only=True)
class Course:
    """Which density is wanted when: it falls as in Zhu and Gupta 2017 (arXiv:1710.01878, equation 1)."""

    start: float
    end: float

    def wanted(self, share: float) -> float:
        """At this share of the steps."""
        return self.end + (self.start - self.end) * max(1 - share / RAMP, 0.0) ** 3

    def factor(self, found: float, share: float) -> float:
        """By which the strength changes where this density is found."""
        ratio = found / max(self.wanted(share), 1e-12)
        return float(np.clip(ratio**GAIN, 1 / MOST, MOST))
