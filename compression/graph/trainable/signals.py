"""Fourier transforms and what goes with them: windows, mel weights."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from compression.graph.trainable.elements import computed_dtype
from compression.graph.trainable.node import Node, Operator, Table, axis_of


def fourier(node: Node, x: Tensor, length: Tensor | None = None, axis: Tensor | None = None) -> Tensor:
    """x: (..., 1) real or (..., 2) complex. The axis is an attribute before opset 20."""
    default = node.attributes.get("axis", 1) if node.opset < 20 else -2
    over = axis_of(default if axis is None else int(axis), x.ndim)
    backward, one_sided = node.attributes.get("inverse", 0), node.attributes.get("onesided", 0)
    count = None if length is None else int(length)
    given = _complex(x)
    if backward and one_sided:
        real: Tensor = torch.fft.irfft(given, count, over)
        return real.unsqueeze(-1)
    result = torch.fft.ifft(given, count, over) if backward else torch.fft.fft(given, count, over)
    if one_sided:
        result = result.narrow(over, 0, result.shape[over] // 2 + 1)
    return torch.view_as_real(result)


def _complex(x: Tensor) -> Tensor:
    return torch.view_as_complex(x.contiguous()) if x.shape[-1] == 2 else x.squeeze(-1)


def short_time_fourier(
    node: Node, signal: Tensor, step: Tensor, window: Tensor | None = None, length: Tensor | None = None
) -> Tensor:
    """signal: (batch, samples, 1 or 2) -> (batch, frames, bins, 2)."""
    size = int(length) if length is not None else window.shape[0] if window is not None else signal.shape[1]
    frames = _complex(signal).unfold(1, size, int(step))
    spectrum = torch.fft.fft(frames if window is None else frames * window, dim=-1)
    one_sided = node.attributes.get("onesided", 1)
    return torch.view_as_real(spectrum[..., : size // 2 + 1] if one_sided else spectrum)


def _window(terms: Sequence[float]) -> Operator:
    """A window that is a sum of cosines."""

    def operator(node: Node, size: Tensor) -> Tensor:
        count = int(size)
        period = count if node.attributes.get("periodic", 1) else count - 1
        angles = 2 * math.pi * torch.arange(count, dtype=torch.float64) / period
        total = sum(
            (term * torch.cos(order * angles) for order, term in enumerate(terms)), torch.zeros(count)
        )
        return total.to(computed_dtype(node.attributes.get("output_datatype", 1)))

    return operator


def mel_weights(
    node: Node, bins: Tensor, length: Tensor, rate: Tensor, lowest: Tensor, highest: Tensor
) -> Tensor:
    """Triangles of equal width on the mel scale: (length // 2 + 1, bins)."""
    count, size = int(bins), int(length)
    low, high = (2595 * math.log10(1 + float(edge) / 700) for edge in (lowest, highest))
    mels = low + torch.arange(count + 2, dtype=torch.float64) * (high - low) / (count + 2)
    edges = torch.floor((size + 1) * 700 * (10 ** (mels / 2595) - 1) / int(rate)).long()
    rows = torch.arange(size // 2 + 1)[:, None]
    first, middle, last = edges[:-2], edges[1:-1], edges[2:]
    rising = torch.where(rows < middle, (rows - first) / (middle - first).clamp(min=1), torch.ones(()))
    falling = (last - rows) / (last - middle).clamp(min=1)
    inside = (rows >= first) & (rows < last) | (rows == middle)
    weights = torch.where(rows <= middle, rising, falling)
    return torch.where(inside, weights, 0.0).to(computed_dtype(node.attributes.get("output_datatype", 1)))


SIGNALS: Table = {
    "BlackmanWindow": _window((0.42, -0.5, 0.08)),
    "DFT": fourier,
    "HammingWindow": _window((25 / 46, -21 / 46)),
    "HannWindow": _window((0.5, -0.5)),
    "MelWeightMatrix": mel_weights,
    "STFT": short_time_fourier,
}
