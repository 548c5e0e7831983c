"""Operators that move entries without computing with them: shapes, slices, gathering, scattering, sorting."""

from collections.abc import Sequence

import torch
from torch import Tensor

from compression.graph.trainable.elements import computed_dtype, computed_tensor
from compression.graph.trainable.node import Node, Table, axis_of, integers, like, shape_tensor


def shape(node: Node, x: Tensor) -> Tensor:
    start, end = node.attributes.get("start", 0), node.attributes.get("end")
    return shape_tensor(x.shape[start:end])


def size(node: Node, x: Tensor) -> Tensor:
    return torch.tensor(x.numel())


def reshape(node: Node, x: Tensor, sizes: Tensor | None = None) -> Tensor:
    """The sizes are an attribute before opset 5. A zero keeps the size unless `allowzero` is set."""
    wanted = list(node.attributes["shape"]) if sizes is None else integers(sizes)
    if not node.attributes.get("allowzero", 0):
        wanted = [x.shape[axis] if size == 0 else size for axis, size in enumerate(wanted)]
    if -1 in wanted and x.numel() == 0:
        wanted = _without_unknown(wanted)
    return x.reshape(wanted)


def _without_unknown(wanted: list[int]) -> list[int]:
    """An empty tensor's unknown size is zero, unless another one is zero already: then it is one."""
    others = 1
    for size in wanted:
        others *= size if size != -1 else 1
    return [(0 if others else 1) if size == -1 else size for size in wanted]


def flatten(node: Node, x: Tensor) -> Tensor:
    """To two axes, cut before `axis`, which may be the rank."""
    rows = 1
    for length in x.shape[: axis_of(node.attributes.get("axis", 1), x.ndim)]:
        rows *= length
    return x.reshape(rows, x.numel() // rows if rows else 0)


def squeeze(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    given = node.attributes.get("axes") if axes is None else integers(axes)
    return torch.squeeze(x) if not given else torch.squeeze(x, tuple(given))


def unsqueeze(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    given = node.attributes["axes"] if axes is None else integers(axes)
    rank = x.ndim + len(given)
    for axis in sorted(axis_of(axis, rank) for axis in given):
        x = x.unsqueeze(axis)
    return x


def transpose(node: Node, x: Tensor) -> Tensor:
    return x.permute(node.attributes.get("perm") or tuple(reversed(range(x.ndim))))


def slice_(
    node: Node,
    x: Tensor,
    starts: Tensor | None = None,
    ends: Tensor | None = None,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    """Starts, ends and axes are attributes before opset 10. Backward steps flip what they pick."""
    first = node.attributes["starts"] if starts is None else integers(starts)
    last = node.attributes["ends"] if ends is None else integers(ends)
    over = node.attributes.get("axes", range(len(first))) if axes is None else integers(axes)
    stride = [1] * len(first) if steps is None else integers(steps)
    index = [slice(None)] * x.ndim
    backward = []
    for axis, start, end, step in zip(over, first, last, stride, strict=True):
        picked = range(*slice(start, _end(end, step), step).indices(x.shape[axis]))
        if step < 0:
            picked = picked[::-1]
            backward.append(axis_of(axis, x.ndim))
        index[axis] = slice(picked.start, picked.stop, picked.step) if len(picked) else slice(0, 0)
    result = x[tuple(index)]
    return result.flip(backward) if backward else result


def _end(end: int, step: int) -> int | None:
    """Going backward, the smallest integers mean past the first entry, which Python writes as None."""
    return None if step < 0 and end <= -(2**31) + 1 else end


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


def concat(node: Node, *inputs: Tensor) -> Tensor:
    """Before opset 4 the axis is 1 where none is given."""
    return torch.cat(inputs, node.attributes.get("axis", 1)) if len(inputs) > 1 else inputs[0]


def split(node: Node, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    """Into given sizes; else into equal parts, of which the last may be smaller from opset 18 on."""
    axis = axis_of(node.attributes.get("axis", 0), x.ndim)
    given = node.attributes.get("split") if sizes is None else integers(sizes)
    if not given:
        parts = node.attributes.get("num_outputs", node.outputs)
        length = -(-x.shape[axis] // parts)
        given = [length] * (parts - 1)
        given.append(x.shape[axis] - sum(given))
    return tuple(torch.split(x, list(given), axis))


def expand(node: Node, x: Tensor, sizes: Tensor) -> Tensor:
    """Both ways: a one in `sizes` keeps the size."""
    wanted = integers(sizes)
    rank = max(x.ndim, len(wanted))
    have = [*[1] * (rank - x.ndim), *x.shape]
    want = [*[1] * (rank - len(wanted)), *wanted]
    return x.expand([two if one == 1 else one for one, two in zip(have, want, strict=True)])


def tile(node: Node, x: Tensor, repeats: Tensor, axis: Tensor | None = None) -> Tensor:
    """Before opset 6 one axis is repeated, which the third input names."""
    if axis is None:
        return x.repeat(integers(repeats))
    counts = [1] * x.ndim
    counts[int(axis)] = int(repeats)
    return x.repeat(counts)


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


def range_(node: Node, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


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


def triangle(node: Node, x: Tensor, k: Tensor | None = None) -> Tensor:
    diagonal = 0 if k is None else int(k)
    return torch.triu(x, diagonal) if node.attributes.get("upper", 1) else torch.tril(x, diagonal)


def eye_like(node: Node, x: Tensor) -> Tensor:
    """Ones on a diagonal, in the given type or the input's."""
    dtype = computed_dtype(node.attributes["dtype"]) if "dtype" in node.attributes else x.dtype
    ones = torch.ones(x.shape, device=x.device)
    shift = node.attributes.get("k", 0)
    return (torch.triu(ones, shift) - torch.triu(ones, shift + 1)).to(dtype)


def constant_of_shape(node: Node, sizes: Tensor) -> Tensor:
    value = node.attributes.get("value")
    fill = torch.zeros(1) if value is None else computed_tensor(value)
    return fill.reshape(()).expand(integers(sizes)).clone()


def depth_to_space(node: Node, x: Tensor) -> Tensor:
    block = node.attributes["blocksize"]
    batch, channels, height, width = x.shape
    if node.attributes.get("mode", "DCR") == "DCR":
        parts = x.reshape(batch, block, block, channels // block**2, height, width)
        moved = parts.permute(0, 3, 4, 1, 5, 2)
    else:
        parts = x.reshape(batch, channels // block**2, block, block, height, width)
        moved = parts.permute(0, 1, 4, 2, 5, 3)
    return moved.reshape(batch, channels // block**2, height * block, width * block)


def space_to_depth(node: Node, x: Tensor) -> Tensor:
    block = node.attributes["blocksize"]
    batch, channels, height, width = x.shape
    parts = x.reshape(batch, channels, height // block, block, width // block, block)
    blocks_first = node.attributes.get("mode", "DCR") == "DCR"
    moved = parts.permute(0, 3, 5, 1, 2, 4) if blocks_first else parts.permute(0, 1, 3, 5, 2, 4)
    return moved.reshape(batch, -1, height // block, width // block)


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


def center_crop_pad(node: Node, x: Tensor, sizes: Tensor) -> Tensor:
    """Cuts or pads with zeros around the middle, axis by axis."""
    axes = node.attributes.get("axes", range(x.ndim))
    for axis, wanted in zip(axes, integers(sizes), strict=True):
        x = _centred(x, axis_of(axis, x.ndim), wanted)
    return x


def _centred(x: Tensor, axis: int, wanted: int) -> Tensor:
    length = x.shape[axis]
    if wanted <= length:
        return x.narrow(axis, (length - wanted) // 2, wanted)
    before = (wanted - length) // 2
    return torch.cat([_zeros(x, axis, before), x, _zeros(x, axis, wanted - length - before)], axis)


def _zeros(x: Tensor, axis: int, length: int) -> Tensor:
    sizes: Sequence[int] = [length if place == axis else size for place, size in enumerate(x.shape)]
    return torch.zeros(sizes, dtype=x.dtype, device=x.device)


INDEXING: Table = {
    "CenterCropPad": center_crop_pad,
    "Compress": compress,
    "Concat": concat,
    "ConstantOfShape": constant_of_shape,
    "CumProd": cumulative_product,
    "CumSum": cumulative_sum,
    "DepthToSpace": depth_to_space,
    "Expand": expand,
    "EyeLike": eye_like,
    "Flatten": flatten,
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "NonZero": non_zero,
    "OneHot": one_hot,
    "Range": range_,
    "Reshape": reshape,
    "ReverseSequence": reverse_sequence,
    "Scatter": scatter_elements,
    "ScatterElements": scatter_elements,
    "ScatterND": scatter_nd,
    "Shape": shape,
    "Size": size,
    "Slice": slice_,
    "SpaceToDepth": space_to_depth,
    "Split": split,
    "Squeeze": squeeze,
    "TensorScatter": tensor_scatter,
    "Tile": tile,
    "TopK": top_k,
    "Transpose": transpose,
    "Trilu": triangle,
    "Unique": unique,
    "Unsqueeze": unsqueeze,
    "Where": where,
}
