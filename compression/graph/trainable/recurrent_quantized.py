"""The LSTM with weights of 8 bits that onnxruntime quantizes what comes in for as it runs."""

from dataclasses import replace

import torch
from torch import Tensor

from compression.graph.trainable.cells import lstm_cell
from compression.graph.trainable.directions import Direction, in_all_directions
from compression.graph.trainable.node import Node
from compression.graph.trainable.quantizing import dequantize_linear, dynamic_quantize_linear
from compression.graph.trainable.sequences import States, stepwise


def dynamic_quantize_lstm(
    node: Node,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None,
    lengths: Tensor | None,
    h: Tensor | None,
    c: Tensor | None,
    peepholes: Tensor | None,
    w_scale: Tensor,
    w_zero: Tensor,
    r_scale: Tensor,
    r_zero: Tensor,
) -> tuple[Tensor, ...]:
    """Inputs are rounded as a whole, states at every step; weights come as (direction, input, gates)."""
    w, r = _weights(node, w, w_scale, w_zero), _weights(node, r, r_scale, r_zero)

    def run(x: Tensor, way: Direction, states: States, lengths: Tensor | None) -> tuple[Tensor, States]:
        cell = lstm_cell(node, way)

        def rounding(step: Tensor, states: States) -> States:
            return cell(step, (_rounded(node, states[0]), *states[1:]))

        return stepwise(rounding, way.projected(_rounded(node, x)), states, lengths)

    return in_all_directions(node, run, ("Sigmoid", "Tanh", "Tanh"), x, (w, r, b, peepholes), lengths, (h, c))


def _weights(node: Node, w: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """Scales are one per direction, or one per direction and gate entry."""
    ways = w.shape[0]
    plain = replace(node, attributes={})
    parts = [
        dequantize_linear(plain, w[way], scale.reshape(ways, -1)[way], zero.reshape(ways, -1)[way])
        for way in range(ways)
    ]
    return torch.stack(parts).transpose(1, 2)


def _rounded(node: Node, x: Tensor) -> Tensor:
    return dequantize_linear(node, *dynamic_quantize_linear(node, x))
