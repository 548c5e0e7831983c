"""The cells of recurrent operators: one step in time, with clipping and activations as given."""

import torch
import torch.nn.functional as F
from torch import Tensor

from compression.graph.trainable.directions import Direction
from compression.graph.trainable.gates import Activation
from compression.graph.trainable.node import Node
from compression.graph.trainable.sequences import Cell, States


def lstm_cell(node: Node, way: Direction) -> Cell:
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


def gru_cell(node: Node, way: Direction) -> Cell:
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


def gru_cell_reset_behind(node: Node, way: Direction) -> Cell:
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


def rnn_cell(node: Node, way: Direction) -> Cell:
    (function,), clip = way.functions, _clipping(node)

    def cell(x: Tensor, states: States) -> States:
        return (function(clip(x + F.linear(states[0], way.r))),)

    return cell


def _clipping(node: Node) -> Activation:
    bound = node.attributes.get("clip", 0)
    return (lambda x: torch.clamp(x, -bound, bound)) if bound else (lambda x: x)
