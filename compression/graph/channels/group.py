"""What can leave a model together, in numbers: groups, their units, and the places that a unit takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

Role = Literal["producer", "consumer", "other", "activation"]
Unit = Literal["channel", "hidden", "head"]
Doomed = Mapping[str, Sequence[int]]
"""By a group's id the units that leave."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Slot:
    """The places of a group's units on one axis of one tensor.

    `indices` has shape (size of the group, k) and dtype int64: row u holds the k positions on `axis` that
    belong to unit u. `value` is a stored tensor or, where the role is "activation", a value in between.
    """

    value: ir.Value
    axis: int
    indices: np.ndarray
    role: Role


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """Units that can be taken out of a model, each alone, as long as one of them stays.

    A unit is an output channel of a convolution, a neuron, a hidden unit of a recurrent layer, an attention
    head or one dimension of all heads, with everything that it touches: the weights that make it
    (`producers`, on their output axis), the weights that read it (`consumers`, on their input axis) and what
    lies between (`others`: biases, normalization, depthwise kernels, constants, quantization scales).
    """

    id: str
    """The name of the first layer that makes the units; `name:2` and on where one layer makes several kinds."""
    size: int
    producers: tuple[Slot, ...]
    consumers: tuple[Slot, ...]
    others: tuple[Slot, ...]
    activations: tuple[Slot, ...]
    """Outputs of the nodes that make the units."""
    layers: tuple[str, ...]
    """Names of the layers whose weights shrink, in graph order."""
    unit: Unit
    multiple: int = 1
    """The number of units left must be a multiple of this."""
    crosses: tuple[str, ...] = ()
    """Groups that cut the same axes across: heads and the dimensions inside them. Cutting both cuts twice."""

    restates: tuple[str, ...] = ()
    """Normalizations whose statistics run over the units: after the cut, over those that stay. Only with widths."""

    @property
    def slots(self) -> tuple[Slot, ...]:
        """All stored tensors that shrink with the group."""
        return (*self.producers, *self.consumers, *self.others)


@dataclass(frozen=True, kw_only=True)
class Locked:
    """A layer whose outputs must stay, all or some, and why."""

    layer: str
    reason: str
    partly: bool = False
    """Some of its outputs belong to groups nevertheless."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Grouping:
    """What of a model can be cut, and what cannot."""

    groups: tuple[Group, ...]
    locked: tuple[Locked, ...]

    def group(self, name: str) -> Group:
        """The group of this id.

        Raises:
            KeyError: there is none.
        """
        return next((group for group in self.groups if group.id == name), None) or _missing(name)


def _missing(name: str) -> Group:
    raise KeyError(name)
