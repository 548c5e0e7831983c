"""LSTM, GRU and plain RNN in one or both directions."""

import torch.nn.functional as F
from torch import Tensor

from compression.graph.trainable.cells import gru_cell, gru_cell_reset_behind, lstm_cell, rnn_cell
from compression.graph.trainable.directions import Direction, in_all_directions
from compression.graph.trainable.node import Node, Table
from compression.graph.trainable.recurrent_quantized import dynamic_quantize_lstm
from compression.graph.trainable.sequences import States, fused, stepwise


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
        return stepwise(lstm_cell(node, way), way.projected(x), states, lengths)

    default = ("Sigmoid", "Tanh", "Tanh")
    return in_all_directions(node, run, default, x, (w, r, b, peepholes), lengths, (h, c))


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
        cell = gru_cell_reset_behind(node, way) if behind else gru_cell(node, way)
        return stepwise(cell, F.linear(x, way.w, way.w_bias), states, lengths)

    return in_all_directions(node, run, ("Sigmoid", "Tanh"), x, (w, r, b, None), lengths, (h,))


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
        return stepwise(rnn_cell(node, way), way.projected(x), states, lengths)

    return in_all_directions(node, run, ("Tanh",), x, (w, r, b, None), lengths, (h,))


def _is_fusible(node: Node, lengths: Tensor | None) -> bool:
    """Torch's kernels know neither clipping nor sequences without any step."""
    return not node.attributes.get("clip", 0) and (lengths is None or bool((lengths > 0).all()))


RECURRENT: Table = {
    "GRU": gru,
    "LSTM": lstm,
    "RNN": rnn,
    "com.microsoft::DynamicQuantizeLSTM": dynamic_quantize_lstm,
}
