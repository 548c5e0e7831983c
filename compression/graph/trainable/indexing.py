"""Operators on shapes: asking for them, changing them, cutting, joining, repeating, and making tensors of them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from compression.graph.trainable.elements import computed_dtype, computed_tensor
from compression.graph.trainable.node import Node, Table, axis_of, integers, shape_tensor


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


def range_(node: Node, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    return torch.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


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
    "Concat": concat,
    "ConstantOfShape": constant_of_shape,
    "DepthToSpace": depth_to_space,
    "Expand": expand,
    "EyeLike": eye_like,
    "Flatten": flatten,
    "Range": range_,
    "Reshape": reshape,
    "Shape": shape,
    "Size": size,
    "Slice": slice_,
    "SpaceToDepth": space_to_depth,
    "Split": split,
    "Squeeze": squeeze,
    "Tile": tile,
    "Transpose": transpose,
    "Trilu": triangle,
    "Unsqueeze": unsqueeze,
}
