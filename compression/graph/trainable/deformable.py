"""Convolution whose kernel places are moved by data."""

import torch
import torch.nn.functional as F
from torch import Tensor

from compression.errors import NotTrainable
from compression.graph.trainable.node import Node
from compression.graph.trainable.windows import Window, window_of


def deform_conv(
    node: Node, x: Tensor, w: Tensor, offset: Tensor, bias: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    """Deformable convolution over two axes (Dai et al. 2017; with a mask, Zhu et al. 2019).

    Every kernel place reads x, linearly interpolated, where its offset points; outside of x there are zeros.
    """
    if x.ndim != 4:
        raise NotTrainable(f"a deformable convolution over {x.ndim - 2} axes is not known")
    window = window_of(node, x.shape[2:], w.shape[2:])
    groups, parts = node.attributes.get("group", 1), node.attributes.get("offset_group", 1)
    batch, places = x.shape[0], w.shape[2] * w.shape[3]
    offset = offset.reshape(batch * parts, places, 2, *offset.shape[2:])
    read = _read(x.reshape(batch * parts, -1, *x.shape[2:]), offset, window)
    if mask is not None:
        read = read * mask.reshape(batch * parts, 1, places, *mask.shape[2:])
    read = read.reshape(batch, groups, -1, *read.shape[3:])
    y = torch.einsum("goc,bgchw->bgohw", w.reshape(groups, w.shape[0] // groups, -1), read).flatten(1, 2)
    return y if bias is None else y + bias.reshape(-1, 1, 1)


def _read(x: Tensor, offset: Tensor, window: Window) -> Tensor:
    """x at (batch, channel, kernel place, row, column)."""
    rows, columns = (_places(axis, window, offset) for axis in range(2))
    height, width = x.shape[2:]
    y = (2 * (rows + offset[:, :, 0]) + 1) / height - 1
    x_ = (2 * (columns + offset[:, :, 1]) + 1) / width - 1
    grid = torch.stack((x_, y), -1).flatten(1, 2)
    sampled = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return sampled.reshape(*x.shape[:2], *offset.shape[1:2], *offset.shape[3:])


def _places(axis: int, window: Window, offset: Tensor) -> Tensor:
    """Where each kernel place lies on an axis before it is moved: (kernel place, row, column)."""
    count = offset.shape[3 + axis]
    starts = torch.arange(count, device=offset.device) * window.strides[axis] - window.begin[axis]
    inside = torch.arange(window.kernel[axis], device=offset.device) * window.dilations[axis]
    shape = (*window.kernel, *offset.shape[3:])
    inside = inside.reshape([-1 if i == axis else 1 for i in range(4)])
    starts = starts.reshape([-1 if i == 2 + axis else 1 for i in range(4)])
    return (inside + starts).expand(shape).reshape(-1, *offset.shape[3:]).to(offset.dtype)
