"""Padding in all modes."""

import torch
import torch.nn.functional as F
from torch import Tensor

from compression.errors import NotTrainable
from compression.graph.trainable.node import Node, axis_of, integers


def pad(
    node: Node,
    x: Tensor,
    pads: Tensor | None = None,
    value: Tensor | None = None,
    axes: Tensor | None = None,
) -> Tensor:
    """Pads are an input since opset 11, an attribute before; negative ones cut off first."""
    widths = list(node.attributes.get("pads") or node.attributes.get("paddings") or ())
    widths = widths if pads is None else integers(pads)
    over = range(x.ndim) if axes is None else [axis_of(axis, x.ndim) for axis in integers(axes)]
    pairs = {axis: (widths[i], widths[i + len(over)]) for i, axis in enumerate(over)}
    mode = node.attributes.get("mode", "constant")
    if mode == "constant":
        fill = node.attributes.get("value", 0.0) if value is None or not value.numel() else value.item()
        return _filled(x, pairs, fill)
    x = _filled(x, {axis: (min(before, 0), min(behind, 0)) for axis, (before, behind) in pairs.items()}, 0.0)
    for axis, (before, behind) in pairs.items():
        if before > 0 or behind > 0:
            places = torch.arange(-max(before, 0), x.shape[axis] + max(behind, 0), device=x.device)
            x = x.index_select(axis, _source(places, x.shape[axis], mode))
    return x


def _filled(x: Tensor, pairs: dict[int, tuple[int, int]], fill: float) -> Tensor:
    if x.dtype == torch.bool:
        return _filled(x.to(torch.uint8), pairs, float(bool(fill))).bool()
    if not any(map(any, pairs.values())):
        return x
    widths = [width for axis in reversed(range(x.ndim)) for width in pairs.get(axis, (0, 0))]
    return F.pad(x, widths, value=fill)


def _source(places: Tensor, size: int, mode: str) -> Tensor:
    """The entry that stands at each place, 0 being the first; wider pads go on to and fro, or round."""
    if mode == "edge":
        return places.clamp(0, size - 1)
    if mode == "wrap":
        return places.remainder(size)
    if mode == "reflect":
        period = max(2 * (size - 1), 1)
        folded = places.remainder(period)
        return torch.minimum(folded, (period - folded).remainder(period)) if size > 1 else folded
    raise NotTrainable(f"padding by {mode!r} is not known")
