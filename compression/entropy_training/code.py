"""What whole numbers of a tensor take once they are coded, estimated so that a gradient can follow it.

A number k in row i and column j takes -log2(1 - p_ij) bits where it is 0, else -log2 p_ij - log2 f_k: p_ij says how
likely one other than 0 is there, f_k how frequent it is among those. Both follow the numbers as they are now, as in
entropy-constrained quantization (Chou, Lookabaugh and Gray 1989), so that what becomes rare becomes dear. Rows and
columns count each for itself, odds(p_ij) = odds(row i) odds(column j) / odds(all): whole units that hold little
become dearer still and empty, which is what coders of sparse matrices live on, and what leaves the graph.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

PRIOR = 3.0
"""Numbers as frequent as in the whole tensor that each row and column counts beside its own."""
FLOOR = 0.3
"""How often each value counts beside how often it occurs."""
RAREST = 1e-5
LARGEST = 1 << 15
"""Numbers beyond it count as it, so that tables stay small."""


@dataclass(frozen=True)
class Code:
    """Bits of a zero and of another number at each place, in shapes that broadcast, and of each value from -m to m."""

    zero: Tensor
    other: Tensor
    values: Tensor

    def bits(self, numbers: Tensor) -> Tensor:
        """Of each; of those beyond m as of m."""
        most = len(self.values) // 2
        beside = self.values[(numbers.clamp(-most, most) + most).long()]
        return torch.where(numbers == 0, self.zero, self.other + beside)

    def slope(self, places: Tensor) -> Tensor:
        """By how many bits the next whole number above each place is dearer than the one below.

        It is the derivative of the bits drawn as straight lines from one whole number to the next; the first and the
        last line go on beyond -m and m.
        """
        most = len(self.values) // 2
        below = (places.floor() + most).clamp_(0, 2 * most - 1).long().reshape(-1)
        away = torch.zeros(2 * most, device=places.device)
        away[most - 1], away[most] = -1.0, 1.0
        beside = self.values.diff().index_select(0, below).reshape(places.shape)
        return beside.addcmul_(away.index_select(0, below).reshape(places.shape), self.other - self.zero)


def fitted(numbers: Tensor) -> Code:
    """The code for whole numbers as frequent as these, of any shape: rows along the first axis, columns along the
    second, and what lies beyond (the taps of a kernel) shares the chance of its row and column."""
    chance = _chances((numbers != 0).to(torch.float32)).clamp(RAREST, 1 - RAREST)
    return Code(zero=-torch.log2(1 - chance), other=-torch.log2(chance), values=_values(numbers))


def _chances(there: Tensor) -> Tensor:
    """p_ij, of a tensor that is 1 where a number is not 0."""
    everywhere = _share(there, tuple(range(there.ndim)), 1.0, torch.tensor(0.5, device=there.device))
    if there.ndim < 2:
        return everywhere
    beyond = tuple(range(2, there.ndim))
    odds = _odds(_share(there, (1, *beyond), PRIOR, everywhere)) / _odds(everywhere)
    odds = odds * _odds(_share(there, (0, *beyond), PRIOR, everywhere))
    return odds / (1 + odds)


def _share(there: Tensor, axes: tuple[int, ...], prior: float, expected: Tensor) -> Tensor:
    """Of ones along these axes, drawn to what is expected by so many more entries."""
    count = there.sum(dim=axes, keepdim=True)
    entries = there.numel() / count.numel()
    return (count + prior * expected) / (entries + prior)


def _odds(share: Tensor) -> Tensor:
    return share / (1 - share)


def _values(numbers: Tensor) -> Tensor:
    """Bits of each value from -m to m beside that it is not 0; m is one more than what occurs."""
    numbers = numbers.clamp(-LARGEST, LARGEST)
    most = int(numbers.abs().max()) + 1
    counts = torch.bincount((numbers + most).long().reshape(-1), minlength=2 * most + 1) + FLOOR
    counts[most] = 0
    bits = -torch.log2(counts / counts.sum())
    bits[most] = 0
    return bits
