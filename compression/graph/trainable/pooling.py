"""Poolings over windows and over all spatial axes."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from compression.errors import NotTrainable
from compression.graph.trainable.node import Node, Table, integers
from compression.graph.trainable.windows import Sizes, Window, padded, window_of, windows

MAX_POOL: dict[int, Callable[..., Any]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
AVERAGE_POOL: dict[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def max_pool(node: Node, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
    """Integers are pooled as float64, in which all that torch cannot pool are exact."""
    window, counts = _window(node, x)
    options: dict[str, Any] = {"stride": window.strides, "dilation": window.dilations, "return_indices": True}
    data, begin = x if x.is_floating_point() else x.double(), (0,) * len(counts)
    if _is_plain(window, counts, x):
        options["padding"] = window.begin
    else:
        begin = window.begin
        data = padded(data, begin, _reach(window, counts, x.shape[2:], begin), -torch.inf)
    y, places = _for_rank(MAX_POOL, x)(data, window.kernel, **options)
    y = y.to(x.dtype)
    return y if node.outputs == 1 else (y, _flat_index(node, places, x, begin, data.shape[2:]))


def _for_rank(functions: dict[int, Callable[..., Any]], x: Tensor) -> Callable[..., Any]:
    if x.ndim - 2 not in functions:
        raise NotTrainable(f"pooling over {x.ndim - 2} axes is not known")
    return functions[x.ndim - 2]


def _window(node: Node, x: Tensor) -> tuple[Window, Sizes]:
    window = window_of(node, x.shape[2:], node.attributes["kernel_shape"])
    return window, window.counts(x.shape[2:], ceil=bool(node.attributes.get("ceil_mode", 0)))


def _is_plain(window: Window, counts: Sizes, x: Tensor) -> bool:
    """Whether torch can pad as asked: the same on both sides, by at most half the kernel, no part windows."""
    halves = all(2 * pad <= size for pad, size in zip(window.begin, window.kernel, strict=True))
    return halves and window.begin == window.end and counts == window.counts(x.shape[2:])


def _reach(window: Window, counts: Sizes, sizes: Sequence[int], begin: Sizes) -> Sizes:
    """How far the last windows reach beyond the data; negative where data is left over."""
    axes = zip(counts, window.strides, window.extents, begin, sizes, strict=True)
    return tuple((count - 1) * stride + extent - pad - size for count, stride, extent, pad, size in axes)


def _flat_index(node: Node, places: Tensor, x: Tensor, begin: Sizes, padded_sizes: torch.Size) -> Tensor:
    """Places in padded planes as places in the whole of x, counted by rows, or by columns within a plane."""
    sizes = x.shape[2:]
    found = torch.unravel_index(places, padded_sizes)
    index = torch.zeros_like(places)
    order = range(len(sizes))
    for axis in reversed(order) if node.attributes.get("storage_order", 0) else order:
        index = index * sizes[axis] + (found[axis] - begin[axis])
    planes = torch.arange(x.shape[0] * x.shape[1], device=x.device).reshape(*x.shape[:2], *[1] * len(sizes))
    return index + planes * sizes.numel()


def average_pool(node: Node, x: Tensor) -> Tensor:
    """A mean over the window's entries that lie in the data, or with `count_include_pad` in data and pads."""
    window, counts = _window(node, x)
    with_pads = bool(node.attributes.get("count_include_pad", 0))
    if x.ndim - 2 in AVERAGE_POOL and set(window.dilations) == {1} and _is_plain(window, counts, x):
        pool = AVERAGE_POOL[x.ndim - 2]
        return pool(x, window.kernel, window.strides, window.begin, False, with_pads)
    inside = torch.ones(1, 1, *x.shape[2:], dtype=x.dtype, device=x.device)
    inside = padded(inside, window.begin, window.end, float(with_pads))
    total = _summed(x, window, counts, window.begin)
    return total / _summed(inside, window, counts, (0,) * len(counts))


def _summed(x: Tensor, window: Window, counts: Sizes, begin: Sizes) -> Tensor:
    """The sum over each window, where x is padded by `begin` and as far as the last windows reach."""
    reach = _reach(window, counts, x.shape[2:], begin)
    return windows(padded(x, begin, reach), window, counts).sum(tuple(range(-len(counts), 0)))


def lp_pool(node: Node, x: Tensor) -> Tensor:
    """The p-norm of each window; pads count as zeros."""
    p = node.attributes.get("p", 2)
    window, counts = _window(node, x)
    return _root(_summed(x.abs() ** p, window, counts, window.begin), p)


def _root(total: Tensor, p: float) -> Tensor:
    """The p-th root, with no gradient rather than an infinite one at zero."""
    return torch.where(total > 0, torch.where(total > 0, total, 1) ** (1 / p), 0)


def global_average_pool(node: Node, x: Tensor) -> Tensor:
    return x.mean(tuple(range(2, x.ndim)), keepdim=True)


def global_max_pool(node: Node, x: Tensor) -> Tensor:
    return x.amax(tuple(range(2, x.ndim)), keepdim=True)


def global_lp_pool(node: Node, x: Tensor) -> Tensor:
    p = node.attributes.get("p", 2)
    return _root((x.abs() ** p).sum(tuple(range(2, x.ndim)), keepdim=True), p)


def max_unpool(node: Node, x: Tensor, places: Tensor, shape: Tensor | None = None) -> Tensor:
    """Puts what MaxPool kept back where it was, by the places it gave; everything else is zero.

    The places count in the smallest tensor that MaxPool can have made x from, also where `shape` is larger.
    """
    window = window_of(node, x.shape[2:], node.attributes["kernel_shape"])
    axes = zip(x.shape[2:], window.strides, window.kernel, window.begin, window.end, strict=True)
    sizes = [(count - 1) * stride + k - begin - end for count, stride, k, begin, end in axes]
    flat = x.new_zeros(x.shape[0] * x.shape[1] * torch.Size(sizes).numel())
    y = flat.scatter(0, places.reshape(-1), x.reshape(-1)).reshape(*x.shape[:2], *sizes)
    if shape is None:
        return y
    wanted = integers(shape)[2:]
    return padded(y, [0] * len(sizes), [goal - size for goal, size in zip(wanted, sizes, strict=True)])


def max_roi_pool(node: Node, x: Tensor, rois: Tensor) -> Tensor:
    """The largest entry in each cell of a grid over each box (Girshick 2015); an empty cell gives 0.

    rois: (R, 5) as image, x1, y1, x2, y2, both corners included.
    """
    scale = node.attributes.get("spatial_scale", 1.0)
    rows, columns = node.attributes["pooled_shape"]
    pooled = []
    for image, *box in rois.tolist():
        left, top, right, bottom = (int(side * scale + 0.5) for side in box)
        cells = [
            x[int(image), :, row, column]
            for row in _cells(top, bottom, rows, x.shape[2])
            for column in _cells(left, right, columns, x.shape[3])
        ]
        largest = [cell.amax((1, 2)) if cell.numel() else x.new_zeros(x.shape[1]) for cell in cells]
        pooled.append(torch.stack(largest, -1).reshape(-1, rows, columns))
    return torch.stack(pooled) if pooled else x.new_zeros(0, x.shape[1], rows, columns)


def _cells(first: int, last: int, count: int, size: int) -> list[slice]:
    """An axis of a box in cells of the same size, which share the entries that their borders fall into."""
    width = max(last - first + 1, 1) / count
    edges = [(math.floor(i * width) + first, math.ceil((i + 1) * width) + first) for i in range(count)]
    return [slice(min(max(start, 0), size), min(max(end, 0), size)) for start, end in edges]


POOLING: Table = {
    "AveragePool": average_pool,
    "GlobalAveragePool": global_average_pool,
    "GlobalLpPool": global_lp_pool,
    "GlobalMaxPool": global_max_pool,
    "LpPool": lp_pool,
    "MaxPool": max_pool,
    "MaxRoiPool": max_roi_pool,
    "MaxUnpool": max_unpool,
}
