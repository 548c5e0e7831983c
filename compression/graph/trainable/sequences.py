"""Runs a recurrent cell along time: by torch's fused kernels where they compute the same, else step by step."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

States = tuple[Tensor, ...]
Cell = Callable[[Tensor, States], States]
"""From a step's projected inputs (batch, gates * hidden) and the states (batch, hidden) to the new states."""

FUSED: dict[str, Callable[..., States]] = {
    "LSTM": torch.lstm,
    "GRU": torch.gru,
    "Tanh": torch.rnn_tanh,
    "Relu": torch.rnn_relu,
}


def stepwise(cell: Cell, x: Tensor, states: States, lengths: Tensor | None) -> tuple[Tensor, States]:
    """x: (time, batch, gates * hidden) -> (time, batch, hidden), states after each sequence's last step.

    As in onnxruntime, a sequence without any step ends in zeros.
    """
    results = []
    for step in range(x.shape[0]):
        new = cell(x[step], states)
        if lengths is None:
            states = new
            results.append(new[0])
            continue
        alive = (step < lengths).unsqueeze(-1)
        states = tuple(torch.where(alive, *pair) for pair in zip(new, states, strict=True))
        results.append(torch.where(alive, new[0], 0))
    if lengths is not None:
        states = tuple(torch.where((lengths > 0).unsqueeze(-1), state, 0) for state in states)
    return torch.stack(results), states


def fused(
    kind: str, x: Tensor, weights: Sequence[Tensor], states: States, lengths: Tensor | None
) -> tuple[Tensor, States]:
    """One layer in one direction.

    Args:
        kind: a key of FUSED.
        x: (time, batch, inputs).
        weights: of the inputs, of the states, and where there are some their biases, gates in torch's order.
        states: each (batch, hidden).
        lengths: (batch,), all above zero; None where every sequence is full.
    """
    settings = (_in_one_buffer(weights), len(weights) > 2, 1, 0.0, torch.is_grad_enabled(), False)
    if lengths is None:
        y, *after = FUSED[kind](x, _together(states), *settings, False)
        return y, tuple(state[0] for state in after)
    packed = pack_padded_sequence(x, lengths.cpu(), enforce_sorted=False)
    order, back = packed.sorted_indices, packed.unsorted_indices
    assert order is not None
    assert back is not None
    sorted_states = _together(tuple(state[order] for state in states))
    y, *after = FUSED[kind](packed.data, packed.batch_sizes, sorted_states, *settings)
    whole, _ = pad_packed_sequence(
        PackedSequence(y, packed.batch_sizes, order, back), total_length=x.shape[0]
    )
    return whole, tuple(state[0][back] for state in after)


def _together(states: States) -> Tensor | list[Tensor]:
    """As torch takes them: a list for the two of an LSTM, alone otherwise, each with an axis for layers."""
    layered = [state.unsqueeze(0).contiguous() for state in states]
    return layered if len(layered) > 1 else layered[0]


def _in_one_buffer(weights: Sequence[Tensor]) -> list[Tensor]:
    """Copies that lie behind one another, as cuDNN wants them."""
    parts = torch.split(torch.cat([item.reshape(-1) for item in weights]), [item.numel() for item in weights])
    return [part.view(item.shape) for part, item in zip(parts, weights, strict=True)]


def turned(x: Tensor, lengths: Tensor | None) -> Tensor:
    """x (time, batch, ...) backwards in time, each sequence within its length. Turned twice it is as before."""
    if lengths is None:
        return x.flip(0)
    steps = torch.arange(x.shape[0], device=x.device).unsqueeze(-1)
    places = torch.where(steps < lengths, lengths - 1 - steps, steps)
    return x.gather(0, places.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
