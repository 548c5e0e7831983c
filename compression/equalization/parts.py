"""A constant of a node seen by channels: how large each is, and which axes a scale per channel runs along."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Spread = tuple[int, ...]


class Left(Exception):
    """A group that is left as it is; the message says why, as the end of a sentence."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """Input `place` of `node`, a constant. Reshaped to `view`, scales reshaped to `spread` broadcast over it."""

    node: ir.Node
    place: int
    view: tuple[int, ...]
    spread: Spread
    measured: bool = False
    """Whether its size says how large the channels are: a weight does, a bias does not."""
    factor: Doubles | None = None
    """What the measured size of each channel is to be multiplied by; 1 where None."""

    @property
    def value(self) -> ir.Value:
        value = self.node.inputs[self.place]
        if value is None:
            raise ValueError(f"{self.node.name} has no input {self.place}")
        return value

    def magnitudes(self, array: Doubles) -> Doubles:
        """max|w| of each channel, of shape (channels,)."""
        axes = tuple(axis for axis, size in enumerate(self.spread) if size == 1)
        found: Doubles = np.abs(array.reshape(self.view)).max(axis=axes, initial=0.0).reshape(-1)
        return found if self.factor is None else found * self.factor

    def multiply(self, array: Doubles, scales: Doubles) -> None:
        """Each channel by its scale, in place."""
        seen = array.reshape(self.view)
        seen *= scales.reshape(self.spread)

    def make_own(self, fresh_name: Callable[[str], str]) -> None:
        """Give the node an initializer that nobody else reads, of the same values."""
        value, graph = self.value, self.node.graph
        if len(list(value.uses())) == 1 and value.producer() is None:
            return
        if not isinstance(graph, ir.Graph) or value.const_value is None:
            raise ValueError(f"{value.name} is no constant of a graph")
        fresh = ir.Value(
            name=fresh_name(f"{value.name}_own"),
            type=value.type,
            shape=value.shape,
            const_value=value.const_value,
        )
        graph.register_initializer(fresh)
        self.node.replace_input_with(self.place, fresh)
        producer = value.producer()
        if producer is not None and not value.uses():
            graph.remove(producer)


def constant(node: ir.Node, place: int) -> ir.TensorProtocol | None:
    """The float32 tensor at an input that nobody outside may change; None where there is none."""
    value = node.inputs[place] if place < len(node.inputs) else None
    if value is None or value.is_graph_input() or value.is_graph_output():
        return None
    tensor = value.const_value
    return tensor if tensor is not None and tensor.dtype == ir.DataType.FLOAT else None


def shape_of(tensor: ir.TensorProtocol) -> tuple[int, ...]:
    return tuple(int(size) for size in tensor.shape.numpy())


def weight_of(node: ir.Node, place: int = 1) -> tuple[int, ...]:
    """The shape of a layer's weight, which only this layer reads.

    Raises:
        Left: it cannot be changed.
    """
    tensor = constant(node, place)
    if tensor is None:
        raise Left(f"the weight of {node.name} is no float32 constant")
    if len(list(node.inputs[place].uses())) > 1:  # type: ignore[union-attr]
        raise Left(f"the weight of {node.name} is shared with other layers")
    return shape_of(tensor)


def vector(node: ir.Node, place: int, channels: int, **options: Any) -> Part:
    """A constant with one entry per channel, whatever axes of size 1 it has besides.

    Raises:
        Left: it is something else.
    """
    tensor = constant(node, place)
    if tensor is None or tensor.size != channels:
        raise Left(
            f"input {place} of {node.name} is no constant with one entry for each of {channels} channels"
        )
    return Part(node=node, place=place, view=(channels,), spread=(channels,), **options)


def is_default(node: ir.Node, *kinds: str) -> bool:
    return node.domain in ("", "ai.onnx") and node.op_type in kinds
