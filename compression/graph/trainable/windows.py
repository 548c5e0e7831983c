"""Windows that slide over the spatial axes, as convolutions and poolings share them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch.nn.functional as F
from torch import Tensor

from compression.graph.trainable.node import Node

Sizes = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Window:
    """How a kernel slides: one entry per spatial axis in each tuple; `begin` and `end` are the pads."""

    kernel: Sizes
    strides: Sizes
    dilations: Sizes
    begin: Sizes
    end: Sizes

    @cached_property
    def extents(self) -> Sizes:
        """How many entries the dilated kernel spans."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    def counts(self, sizes: Sequence[int], *, ceil: bool = False) -> Sizes:
        """How often the kernel fits on padded axes; with `ceil` a last, partly empty place counts.

        Such a place must start within the data or its leading pad, as in onnxruntime and torch.
        """
        return tuple(self._count(axis, size, ceil) for axis, size in enumerate(sizes))

    def _count(self, axis: int, size: int, ceil: bool) -> int:
        stride = self.strides[axis]
        room = size + self.begin[axis] + self.end[axis] - self.extents[axis]
        if not ceil:
            return room // stride + 1
        count = -(-room // stride) + 1
        return count - 1 if (count - 1) * stride >= size + self.begin[axis] else count


def window_of(node: Node, sizes: Sequence[int], kernel: Sequence[int]) -> Window:
    """The window of a Conv or a pooling; SAME_UPPER and SAME_LOWER give ceil(size / stride) places."""
    ones = (1,) * len(sizes)
    window = Window(
        kernel=tuple(kernel),
        strides=tuple(node.attributes.get("strides") or ones),
        dilations=tuple(node.attributes.get("dilations") or ones),
        begin=(0,) * len(sizes),
        end=(0,) * len(sizes),
    )
    begin, end = pads_of(node, len(sizes), _missing(window, sizes))
    return Window(
        kernel=window.kernel, strides=window.strides, dilations=window.dilations, begin=begin, end=end
    )


def pads_of(node: Node, axes: int, totals: Sizes) -> tuple[Sizes, Sizes]:
    """Pads in front and behind: as given, or the totals halved where `auto_pad` says so."""
    mode = node.attributes.get("auto_pad", "NOTSET")
    if mode == "SAME_UPPER":
        return tuple(total // 2 for total in totals), tuple(total - total // 2 for total in totals)
    if mode == "SAME_LOWER":
        return tuple(total - total // 2 for total in totals), tuple(total // 2 for total in totals)
    pads = () if mode == "VALID" else tuple(node.attributes.get("pads") or ())
    pads = pads or (0,) * (2 * axes)
    return pads[:axes], pads[axes:]


def _missing(window: Window, sizes: Sequence[int]) -> Sizes:
    """The padding that makes ceil(size / stride) places of each axis."""
    axes = zip(sizes, window.strides, window.extents, strict=True)
    return tuple(max((-(-size // stride) - 1) * stride + extent - size, 0) for size, stride, extent in axes)


def padded(x: Tensor, begin: Sequence[int], end: Sequence[int], value: float = 0.0) -> Tensor:
    """The last axes of x padded; negative pads cut off."""
    if not any(begin) and not any(end):
        return x
    pairs = zip(reversed(begin), reversed(end), strict=True)
    return F.pad(x, [pad for pair in pairs for pad in pair], value=value)


def windows(x: Tensor, window: Window, counts: Sizes) -> Tensor:
    """A view of x (batch, channel, *padded sizes) as (batch, channel, *counts, *kernel)."""
    for axis, count in enumerate(counts):
        extent, stride = window.extents[axis], window.strides[axis]
        x = x.unfold(axis + 2, extent, stride).narrow(axis + 2, 0, count)
        x = x[..., :: window.dilations[axis]]
    return x
