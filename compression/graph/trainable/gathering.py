"""Operators that pick entries, put entries, and sort them: gathering, scattering, choosing, sums along the way."""

import torch
from torch import Tensor

from compression.graph.trainable.node import Node, Table, axis_of, integers, like


def gather(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    axis = axis_of(node.attributes.get("axis", 0), x.ndim)
    if indices.ndim == 0 and indices.device.type == "cpu":
        return x.select(axis, int(indices))
    flat = _from_front(indices.reshape(-1), x.shape[axis])
    picked = torch.index_select(x, axis, flat)
    return picked.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def _from_front(indices: Tensor, length: int) -> Tensor:
    """Indices counted from the front, as int64."""
    indices = indices.long()
    return torch.where(indices < 0, indices + length, indices)


def gather_elements(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    axis = axis_of(node.attributes.get("axis", 0), x.ndim)
    return torch.gather(x, axis, _from_front(indices, x.shape[axis]))


def gather_nd(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    """The last axis of `indices` addresses the axes of x after `batch_dims` shared ones."""
    batch = node.attributes.get("batch_dims", 0)
    return x[(*_batch_grid(x, batch, indices.ndim - 1), *_addresses(x, indices, batch))]


def _batch_grid(x: Tensor, batch: int, rank: int) -> list[Tensor]:
    """For each shared axis, which entry of it every address belongs to."""
    grid = []
    for axis in range(batch):
        sizes = [x.shape[axis] if place == axis else 1 for place in range(rank)]
        grid.append(torch.arange(x.shape[axis], device=x.device).reshape(sizes))
    return grid


def _addresses(x: Tensor, indices: Tensor, batch: int = 0) -> list[Tensor]:
    parts = indices.long().unbind(-1)
    return [_from_front(part, x.shape[batch + place]) for place, part in enumerate(parts)]


REDUCES = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def scatter_elements(node: Node, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    axis = axis_of(node.attributes.get("axis", 0), x.ndim)
    where = _from_front(indices, x.shape[axis])
    reduction = node.attributes.get("reduction", "none")
    updates = updates.to(x.dtype)
    if reduction == "none":
        return torch.scatter(x, axis, where, updates)
    return torch.scatter_reduce(x, axis, where, updates, REDUCES[reduction])


def scatter_nd(node: Node, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """The addressed axes count as one, so that reductions over equal addresses are torch's own."""
    depth = indices.shape[-1]
    rows = _row_numbers(x, indices)
    flat = x.reshape(-1, *x.shape[depth:]) if depth else x[None]
    source = updates.reshape(-1, *x.shape[depth:]).to(x.dtype)
    reduction = node.attributes.get("reduction", "none")
    if reduction == "none":
        return flat.index_copy(0, rows, source).reshape(x.shape)
    spread = rows.reshape(-1, *[1] * (flat.ndim - 1)).expand(source.shape)
    return torch.scatter_reduce(flat, 0, spread, source, REDUCES[reduction]).reshape(x.shape)


def _row_numbers(x: Tensor, indices: Tensor) -> Tensor:
    rows = torch.zeros(indices.shape[:-1], dtype=torch.int64, device=indices.device)
    for place, part in enumerate(_addresses(x, indices)):
        rows = rows * x.shape[place] + part
    return rows.reshape(-1)


def tensor_scatter(node: Node, past: Tensor, update: Tensor, starts: Tensor | None = None) -> Tensor:
    """Writes a run of entries into a cache, from `starts` of each batch item on; around its end if circular."""
    axis = axis_of(node.attributes.get("axis", -2), past.ndim)
    length, run = past.shape[axis], update.shape[axis]
    begin = torch.zeros(past.shape[0], dtype=torch.int64) if starts is None else starts.long()
    where = like(begin, past)[:, None] + torch.arange(run, device=past.device)
    if node.attributes.get("mode", "linear") == "circular":
        where = where % length
    sizes = [past.shape[0] if place == 0 else run if place == axis else 1 for place in range(past.ndim)]
    return torch.scatter(past, axis, where.reshape(sizes).expand(update.shape), update.to(past.dtype))


def top_k(node: Node, x: Tensor, k: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Of equals the one of lower index comes first, hence a stable sort."""
    count = node.attributes["k"] if k is None else int(k)
    axis = axis_of(node.attributes.get("axis", -1), x.ndim)
    largest = bool(node.attributes.get("largest", 1))
    values, indices = torch.sort(x, dim=axis, descending=largest, stable=True)
    return values.narrow(axis, 0, count), indices.narrow(axis, 0, count)


def non_zero(node: Node, x: Tensor) -> Tensor:
    return torch.nonzero(x.reshape(1) if x.ndim == 0 else x).t()[: max(x.ndim, 0)]


def where(node: Node, condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return torch.where(condition, x, y)


def cumulative_sum(node: Node, x: Tensor, axis: Tensor) -> Tensor:
    over = axis_of(int(axis), x.ndim)
    backward = bool(node.attributes.get("reverse", 0))
    x = x.flip(over) if backward else x
    total = torch.cumsum(x, over, dtype=x.dtype)
    total = total - x if node.attributes.get("exclusive", 0) else total
    return total.flip(over) if backward else total


def cumulative_product(node: Node, x: Tensor, axis: Tensor) -> Tensor:
    over = axis_of(int(axis), x.ndim)
    backward = bool(node.attributes.get("reverse", 0))
    x = x.flip(over) if backward else x
    if node.attributes.get("exclusive", 0):
        ones = torch.ones_like(x.narrow(over, 0, 1))
        x = torch.cat([ones, x.narrow(over, 0, x.shape[over] - 1)], over)
    total = torch.cumprod(x, over, dtype=x.dtype)
    return total.flip(over) if backward else total


def one_hot(node: Node, indices: Tensor, depth: Tensor, values: Tensor) -> Tensor:
    """Indices outside -depth .. depth-1 give a row without the on value."""
    count = int(depth)
    axis = axis_of(node.attributes.get("axis", -1), indices.ndim + 1)
    places = torch.arange(count, device=indices.device)
    given = torch.where(indices < 0, indices + count, indices).unsqueeze(axis)
    hot = given == places.reshape([count if place == axis else 1 for place in range(indices.ndim + 1)])
    return torch.where(hot, values[1], values[0])


def compress(node: Node, x: Tensor, condition: Tensor) -> Tensor:
    """Entries where the condition holds, which may be shorter than the axis."""
    axis = node.attributes.get("axis")
    x = x.reshape(-1) if axis is None else x
    return torch.index_select(x, axis or 0, torch.nonzero(condition).reshape(-1))


def reverse_sequence(node: Node, x: Tensor, lengths: Tensor) -> Tensor:
    """Turns the first `lengths` entries of each batch item around along the time axis."""
    time, batch = node.attributes.get("time_axis", 0), node.attributes.get("batch_axis", 1)
    steps = torch.arange(x.shape[time], device=x.device)
    ends = like(lengths, x).long()[:, None]
    source = torch.where(steps < ends, ends - 1 - steps, steps)
    source = source if batch < time else source.t()
    sizes = [size if place in (time, batch) else 1 for place, size in enumerate(x.shape)]
    return torch.gather(x, time, source.reshape(sizes).expand(x.shape))


def unique(node: Node, x: Tensor) -> tuple[Tensor, ...]:
    """Values, where each first stands, which of them every entry is, and how often each occurs."""
    axis = node.attributes.get("axis")
    x = x.reshape(-1) if axis is None else x
    over = 0 if axis is None else axis_of(axis, x.ndim)
    values, inverse, counts = torch.unique(x, dim=over, return_inverse=True, return_counts=True)
    positions = torch.arange(inverse.numel(), device=x.device)
    first = torch.full_like(counts, inverse.numel()).scatter_reduce(0, inverse, positions, "amin")
    if not node.attributes.get("sorted", 1):
        order = torch.argsort(first)
        values, first, counts = values.index_select(over, order), first[order], counts[order]
        inverse = torch.argsort(order)[inverse]
    return values, first, inverse, counts


def col2im(node: Node, x: Tensor, image: Tensor, block: Tensor) -> Tensor:
    """Adds blocks up to an image: x is (N, C * entries of a block, blocks), for any number of spatial axes."""
    kernel = integers(block)
    rank = len(kernel)
    strides, dilations = (node.attributes.get(name, (1,) * rank) for name in ("strides", "dilations"))
    pads = node.attributes.get("pads", (0,) * 2 * rank)
    sizes = [size + pads[axis] + pads[axis + rank] for axis, size in enumerate(integers(image))]
    where = torch.zeros((1,) * 2 * rank, dtype=torch.int64)
    for axis, size in enumerate(sizes):
        count = (size - (kernel[axis] - 1) * dilations[axis] - 1) // strides[axis] + 1
        inside = (torch.arange(kernel[axis]) * dilations[axis]).reshape(_along(axis, 2 * rank))
        starts = (torch.arange(count) * strides[axis]).reshape(_along(rank + axis, 2 * rank))
        where = where * size + inside + starts
    flat = x.reshape(x.shape[0], -1, where.numel())
    added = torch.zeros(*flat.shape[:2], _product(sizes), dtype=x.dtype, device=x.device)
    added = added.index_add(2, like(where.reshape(-1), x), flat).reshape(*flat.shape[:2], *sizes)
    for axis, size in enumerate(integers(image)):
        added = added.narrow(2 + axis, pads[axis], size)
    return added


def _along(axis: int, rank: int) -> list[int]:
    return [-1 if place == axis else 1 for place in range(rank)]


def _product(sizes: list[int]) -> int:
    total = 1
    for size in sizes:
        total *= size
    return total


GATHERING: Table = {
    "Col2Im": col2im,
    "Compress": compress,
    "CumProd": cumulative_product,
    "CumSum": cumulative_sum,
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "NonZero": non_zero,
    "OneHot": one_hot,
    "ReverseSequence": reverse_sequence,
    "Scatter": scatter_elements,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
    "TensorScatter": tensor_scatter,
    "TopK": top_k,
    "Unique": unique,
    "Where": where,
}
