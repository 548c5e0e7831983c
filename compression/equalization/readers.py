"""The weights of layers that read a tensor, seen by the channels of what they read."""

import onnx_ir as ir

from compression.equalization.parts import Left, Part, is_default, weight_of


def is_reader(node: ir.Node, place: int) -> bool:
    """Whether a layer multiplies its input `place` by a weight: Conv, Gemm, MatMul."""
    turned = node.op_type == "Gemm" and node.attributes.get_int("transA", 0) != 0
    return place == 0 and is_default(node, "Conv", "Gemm", "MatMul") and not turned


def channels_read(node: ir.Node) -> int:
    """How many channels a layer reads.

    Raises:
        Left: its weight cannot be changed.
    """
    shape = weight_of(node)
    if node.op_type == "Conv":
        return shape[1] * node.attributes.get_int("group", 1)
    if len(shape) != 2:
        raise Left(f"the weight of {node.name} is no matrix")
    return shape[1] if _transposed(node) else shape[0]


def raised(node: ir.Node, channels: int) -> Part:
    """The weight of a layer that reads `channels` channels, or so many with several neighbouring inputs each.

    Raises:
        Left: the numbers do not fit.
    """
    shape, read = weight_of(node), channels_read(node)
    if read % channels:
        raise Left(f"{node.name} reads {read} inputs, which {channels} channels do not divide")
    each = read // channels
    if node.op_type == "Conv":
        groups = node.attributes.get_int("group", 1)
        view: tuple[int, ...] = (groups, shape[0] // groups, shape[1], -1)
        return Part(node=node, place=1, view=view, spread=(groups, 1, shape[1], 1), measured=True)
    spread: tuple[int, ...] = (1, channels, 1) if _transposed(node) else (channels, 1, 1)
    view = (shape[0], channels, each) if _transposed(node) else (channels, each, shape[1])
    return Part(node=node, place=1, view=view, spread=spread, measured=True)


def _transposed(node: ir.Node) -> bool:
    return node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 1
