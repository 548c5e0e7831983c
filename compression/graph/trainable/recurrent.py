"""LSTM, GRU and plain RNN in one or both directions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from compression.graph.trainable.gates import Activation, activations
from compression.graph.trainable.node import Node, Table
from compression.graph.trainable.sequences import Cell, States, fused, stepwise, turned


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


def lstm(
    node: Node,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Tensor | None = None,
    h: Tensor | None = None,
    c: Tensor | None = None,
    peepholes: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Hochreiter & Schmidhuber 1997, with the forget gates and peepholes of Gers & Schmidhuber 2000."""

    def run(x: Tensor, way: Direction, states: States, lengths: Tensor | None) -> tuple[Tensor, States]:
        plain = way.names == ("sigmoid", "tanh", "tanh") and way.peepholes is None
        if plain and _is_fusible(node, lengths) and not node.attributes.get("input_forget", 0):
            return fused("LSTM", x, way.in_order((0, 2, 3, 1)), states, lengths)
        return stepwise(_lstm_cell(node, way), way.projected(x), states, lengths)

    default = ("Sigmoid", "Tanh", "Tanh")
    return _in_all_directions(node, run, default, x, (w, r, b, peepholes), lengths, (h, c))


def _lstm_cell(node: Node, way: Direction) -> Cell:
    gate, inner, outer = way.functions
    clip = _clipping(node)
    coupled = bool(node.attributes.get("input_forget", 0))
    p_i, p_o, p_f = (0.0, 0.0, 0.0) if way.peepholes is None else way.peepholes.chunk(3)

    def cell(x: Tensor, states: States) -> States:
        h, c = states
        i, o, f, g = (x + F.linear(h, way.r)).chunk(4, -1)
        i = gate(clip(i + p_i * c))
        f = 1 - i if coupled else gate(clip(f + p_f * c))
        c = f * c + i * inner(clip(g))
        return gate(clip(o + p_o * c)) * outer(c), c

    return cell


def gru(
    node: Node,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Tensor | None = None,
    h: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Cho et al. 2014; with `linear_before_reset` as cuDNN and torch compute it."""
    behind = bool(node.attributes.get("linear_before_reset", 0))

    def run(x: Tensor, way: Direction, states: States, lengths: Tensor | None) -> tuple[Tensor, States]:
        if way.names == ("sigmoid", "tanh") and behind and _is_fusible(node, lengths):
            return fused("GRU", x, way.in_order((1, 0, 2)), states, lengths)
        cell = _gru_cell_reset_behind(node, way) if behind else _gru_cell(node, way)
        return stepwise(cell, F.linear(x, way.w, way.w_bias), states, lengths)

    return _in_all_directions(node, run, ("Sigmoid", "Tanh"), x, (w, r, b, None), lengths, (h,))


def _gru_cell(node: Node, way: Direction) -> Cell:
    """The reset gate acts on the state."""
    gate, inner = way.functions
    clip = _clipping(node)
    size = way.r.shape[1]
    bias = way.r.new_zeros(3 * size) if way.r_bias is None else way.r_bias

    def cell(x: Tensor, states: States) -> States:
        (h,) = states
        z, r = gate(clip(x[:, : 2 * size] + F.linear(h, way.r[: 2 * size], bias[: 2 * size]))).chunk(2, -1)
        n = inner(clip(x[:, 2 * size :] + F.linear(r * h, way.r[2 * size :], bias[2 * size :])))
        return ((1 - z) * n + z * h,)

    return cell


def _gru_cell_reset_behind(node: Node, way: Direction) -> Cell:
    """The reset gate acts on what the weights have made of the state."""
    gate, inner = way.functions
    clip = _clipping(node)

    def cell(x: Tensor, states: States) -> States:
        (h,) = states
        x_z, x_r, x_n = x.chunk(3, -1)
        h_z, h_r, h_n = F.linear(h, way.r, way.r_bias).chunk(3, -1)
        z, r = gate(clip(x_z + h_z)), gate(clip(x_r + h_r))
        return ((1 - z) * inner(clip(x_n + r * h_n)) + z * h,)

    return cell


def rnn(
    node: Node,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lengths: Tensor | None = None,
    h: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """h = f(W x + R h + biases)."""

    def run(x: Tensor, way: Direction, states: States, lengths: Tensor | None) -> tuple[Tensor, States]:
        if way.names[0] in ("tanh", "relu") and _is_fusible(node, lengths):
            return fused(way.names[0].capitalize(), x, way.in_order((0,)), states, lengths)
        (function,), clip = way.functions, _clipping(node)
        cell = lambda x, states: (function(clip(x + F.linear(states[0], way.r))),)  # noqa: E731
        return stepwise(cell, way.projected(x), states, lengths)

    return _in_all_directions(node, run, ("Tanh",), x, (w, r, b, None), lengths, (h,))


def _is_fusible(node: Node, lengths: Tensor | None) -> bool:
    """Torch's kernels know neither clipping nor sequences without any step."""
    return not node.attributes.get("clip", 0) and (lengths is None or bool((lengths > 0).all()))


def _clipping(node: Node) -> Activation:
    bound = node.attributes.get("clip", 0)
    return (lambda x: torch.clamp(x, -bound, bound)) if bound else (lambda x: x)


Run = Callable[[Tensor, Direction, States, Tensor | None], tuple[Tensor, States]]


def _in_all_directions(
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


RECURRENT: Table = {"GRU": gru, "LSTM": lstm, "RNN": rnn}
