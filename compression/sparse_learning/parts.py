"""What a penalty works on: single weights, or units that stay or leave whole."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from compression.sparse_learning.proximal import Size, group_norms, ridge, soft_threshold
from compression.training.optimizing import step_size

Optimizer = torch.optim.Optimizer


class Part(Protocol):
    """One tensor's weights, or a group of units: `size` of them, each of which stays or becomes zero."""

    name: str
    layers: tuple[str, ...]
    needs_one: ClassVar[bool]
    """Whether one of them has to stay."""

    @property
    def size(self) -> int:
        """How many there are."""

    def magnitudes(self) -> Tensor:
        """How large each is now, [size]: absolute values, or root mean squares of units."""

    def resistance(self, optimizer: Optimizer) -> Tensor:
        """The least strength that brings each to zero in one step, [size]."""

    def shrink(self, optimizer: Optimizer, strength: float, spared: Tensor | None = None) -> None:
        """The proximal step that belongs to the optimizer's last one, in place.

        Where `spared` [size] is True, nothing vanishes: what would, stays as it is in this step.
        """

    def keep(self, kept: Tensor) -> None:
        """Sets to zero where `kept` [size] is False."""

    def masks(self, kept: Tensor) -> dict[str, Tensor]:
        """The same as masks in the shapes of the stored tensors, by initializer name."""


@dataclass(kw_only=True)
class Weights:
    """The weights of one tensor, each for itself; with `squared` under the ridge penalty, else under L1."""

    name: str
    layers: tuple[str, ...]
    weight: nn.Parameter
    squared: bool = False
    needs_one: ClassVar[bool] = False

    @property
    def size(self) -> int:
        return self.weight.numel()

    @torch.no_grad()
    def magnitudes(self) -> Tensor:
        return self.weight.abs().reshape(-1)

    @torch.no_grad()
    def resistance(self, optimizer: Optimizer) -> Tensor:
        return (self.weight.abs() / step_size(optimizer, self.weight)).reshape(-1)

    @torch.no_grad()
    def shrink(self, optimizer: Optimizer, strength: float, spared: Tensor | None = None) -> None:
        step = ridge if self.squared else soft_threshold
        after = step(self.weight, strength * step_size(optimizer, self.weight))
        if spared is not None:
            after = torch.where((after == 0) & spared.reshape(after.shape), self.weight, after)
        self.weight.copy_(after)

    @torch.no_grad()
    def keep(self, kept: Tensor) -> None:
        self.weight.masked_fill_(~kept.reshape(self.weight.shape), 0.0)

    def masks(self, kept: Tensor) -> dict[str, Tensor]:
        return {self.name: kept.reshape(self.weight.shape)}


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Where units lie in one tensor: unit u at the positions `indices[u]` of the axis; `indices` is [size, k]."""

    name: str
    weight: nn.Parameter
    axis: int
    indices: Tensor

    def spread(self, of_units: Tensor, otherwise: float | bool) -> Tensor:
        """One value per unit as one per position of the axis, shaped to be broadcast over the tensor."""
        length = self.weight.shape[self.axis]
        line = torch.full((length,), otherwise, dtype=of_units.dtype, device=of_units.device)
        line[self.indices.reshape(-1)] = of_units.repeat_interleave(self.indices.shape[1])
        return line.reshape([length if axis == self.axis else 1 for axis in range(self.weight.ndim)])

    def gathered(self, values: Tensor) -> Tensor:
        """A tensor of the weight's shape as one row per unit, [size, n]."""
        rows = values.movedim(self.axis, 0).reshape(values.shape[self.axis], -1)
        return rows[self.indices.reshape(-1)].reshape(len(self.indices), -1)

    def scattered(self, rows: Tensor) -> None:
        """Puts such rows back into the weight; what belongs to no unit stays."""
        moved = self.weight.movedim(self.axis, 0)
        moved[self.indices.reshape(-1)] = rows.reshape(-1, *moved.shape[1:])

    def sizes(self, optimizer: Optimizer) -> Size:
        found = step_size(optimizer, self.weight)
        return self.gathered(found) if isinstance(found, Tensor) else found


@dataclass(kw_only=True)
class Units:
    """Units that stay or leave whole, under the group lasso: strength * sum_g sqrt(n_g) |w_g| (Yuan and Lin 2006).

    Args:
        slices: the weights that make the units, n_g in each: these are penalised.
        followers: what else belongs to a unit (biases, normalization): zero where the unit is.
    """

    name: str
    layers: tuple[str, ...]
    slices: Sequence[Slice]
    followers: Sequence[Slice] = ()
    needs_one: ClassVar[bool] = True

    @property
    def size(self) -> int:
        return int(self.slices[0].indices.shape[0])

    @property
    def entries(self) -> int:
        """Penalised weights of one unit."""
        return sum(
            part.indices.shape[1] * part.weight.numel() // part.weight.shape[part.axis]
            for part in self.slices
        )

    @torch.no_grad()
    def magnitudes(self) -> Tensor:
        return self._root_mean_square([part.gathered(part.weight) for part in self.slices])

    @torch.no_grad()
    def resistance(self, optimizer: Optimizer) -> Tensor:
        return self._root_mean_square(
            [part.gathered(part.weight) / part.sizes(optimizer) for part in self.slices]
        )

    @torch.no_grad()
    def shrink(self, optimizer: Optimizer, strength: float, spared: Tensor | None = None) -> None:
        strength *= sqrt(self.entries)
        groups = [(part.gathered(part.weight), part.sizes(optimizer)) for part in self.slices]
        norms = group_norms(groups, strength)[:, None]
        for part, (values, size) in zip(self.slices, groups, strict=True):
            after = values * (norms / (norms + strength * size))
            if spared is not None:
                after = torch.where((norms == 0) & spared[:, None], values, after)
            part.scattered(after)

    @torch.no_grad()
    def keep(self, kept: Tensor) -> None:
        for part in (*self.slices, *self.followers):
            part.weight.masked_fill_(~part.spread(kept, True), 0.0)

    def masks(self, kept: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for part in (*self.slices, *self.followers):
            mask = part.spread(kept, True).expand(part.weight.shape)
            found[part.name] = found[part.name] & mask if part.name in found else mask.clone()
        return found

    def _root_mean_square(self, rows: Sequence[Tensor]) -> Tensor:
        total = torch.stack([row.square().sum(dim=1) for row in rows]).sum(dim=0)
        return (total / self.entries).sqrt()
