"""Runs a recurrent operator in the directions and the layout that its node asks for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from compression.graph.trainable.gates import Activation, activations
from compression.graph.trainable.node import Node
from compression.graph.trainable.sequences import States, turned


@dataclass(frozen=True, kw_only=True)
class Direction:
    """The parameters of one direction; gates lie along the first axes in ONNX's order."""

    w: Tensor
    r: Tensor
    w_bias: Tensor | None
    r_bias: Tensor | None
    peepholes: Tensor | None
    functions: Sequence[Activation]
    names: tuple[str, ...]

    def projected(self, x: Tensor) -> Tensor:
        """The inputs' share of all gates, with both biases."""
        return F.linear(x, self.w, self.bias)

    @property
    def bias(self) -> Tensor | None:
        return None if self.w_bias is None or self.r_bias is None else self.w_bias + self.r_bias

    def in_order(self, order: Sequence[int]) -> list[Tensor]:
        """Weights and biases with the gates in another order."""
        given = (self.w, self.r, self.w_bias, self.r_bias)
        parts = [item.chunk(len(order)) for item in given if item is not None]
        return [torch.cat([part[gate] for gate in order]) for part in parts]


Run = Callable[[Tensor, Direction, States, Tensor | None], tuple[Tensor, States]]


def in_all_directions(
    node: Node,
    run: Run,
    default: tuple[str, ...],
    x: Tensor,
    parameters: tuple[Tensor, Tensor, Tensor | None, Tensor | None],
    lengths: Tensor | None,
    initial: tuple[Tensor | None, ...],
) -> tuple[Tensor, ...]:
    """Y and the last states, as the layout says; with layout 1 the batch comes first everywhere."""
    batch_first = bool(node.attributes.get("layout", 0))
    if batch_first:
        x = x.transpose(0, 1)
        initial = tuple(None if item is None else item.transpose(0, 1) for item in initial)
    lengths = _needed(lengths, x)
    ways = _directions(node, default, parameters)
    results = []
    for index, way in enumerate(ways):
        zeros = x.new_zeros(x.shape[1], way.r.shape[1])
        states = tuple(zeros if item is None else item[index] for item in initial)
        backwards = index == 1 or node.attributes.get("direction", "forward") == "reverse"
        y, states = run(turned(x, lengths) if backwards else x, way, states, lengths)
        results.append((turned(y, lengths) if backwards else y, *states))
    y, *last = (torch.stack(parts, 1 if i == 0 else 0) for i, parts in enumerate(zip(*results, strict=True)))
    if batch_first:
        y, last = y.permute(2, 0, 1, 3), [item.transpose(0, 1) for item in last]
    return (y, *last)[: node.outputs]


def _needed(lengths: Tensor | None, x: Tensor) -> Tensor | None:
    """Lengths only where some sequence is shorter than all the time there is."""
    if lengths is None or bool((lengths >= x.shape[0]).all()):
        return None
    return lengths.to(x.device, torch.int64)


def _directions(
    node: Node, default: tuple[str, ...], parameters: tuple[Tensor, Tensor, Tensor | None, Tensor | None]
) -> list[Direction]:
    w, r, b, peepholes = parameters
    names = tuple(node.attributes.get("activations") or default * w.shape[0])
    alphas, betas = (node.attributes.get(f"activation_{name}") or () for name in ("alpha", "beta"))
    functions = activations(names, alphas, betas)
    count = len(default)
    ways = []
    for index in range(w.shape[0]):
        w_bias, r_bias = (None, None) if b is None else b[index].chunk(2)
        own = slice(index * count, (index + 1) * count)
        ways.append(
            Direction(
                w=w[index],
                r=r[index],
                w_bias=w_bias,
                r_bias=r_bias,
                peepholes=None if peepholes is None else peepholes[index],
                functions=functions[own],
                names=tuple(name.lower() for name in names[own]),
            )
        )
    return ways
