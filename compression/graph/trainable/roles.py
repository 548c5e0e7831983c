"""What each stored tensor is to training: a parameter, a statistic of BatchNorm, or a constant.

Told from the operator schemas, without torch.
"""

from collections.abc import Iterator
from enum import StrEnum
from functools import cache

import numpy as np
import onnx
import onnx_ir as ir

from compression.graph.constants import release
from compression.graph.naming import all_graphs
from compression.graph.operators import DEFAULT_DOMAINS, FLOATS, WEIGHT_INPUTS

SUMMANDS_AND_FACTORS = frozenset({"Add", "Sub", "Mul", "Div"})
PRODUCTS = frozenset({"MatMul", "Gemm", "Einsum"})
WEIGHT_NAMES = frozenset({"w", "b", "r", "p", "weight", "bias", "scale", "slope", "gamma", "beta"})
"""What the schemas of layers and normalizations call the inputs that are learned."""
NAMED_SO_BUT_FREE = frozenset(
    {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Mod", "And", "Or"}
)
"""Comparisons, whose operands are called A and B."""
CONTRIBUTED: dict[str, tuple[int, ...]] = {
    "BiasGelu": (1,),
    "FastGelu": (1,),
    "BiasAdd": (1, 2),
    "BiasSplitGelu": (1,),
    "Attention": (1, 2),
    "MultiHeadAttention": (3,),
    "GroupNorm": (1, 2),
    "SkipGroupNorm": (1, 2, 4),
    "SkipLayerNormalization": (2, 3, 4),
    "SimplifiedLayerNormalization": (1,),
    "SkipSimplifiedLayerNormalization": (2, 3),
}
"""Operators that onnxruntime adds and onnx has no schema of; beside those of WEIGHT_INPUTS."""
PASSED_ON: dict[str, tuple[int, ...] | None] = {
    **dict.fromkeys(("Transpose", "Reshape", "Identity", "Cast", "CastLike", "Squeeze", "Unsqueeze"), (0,)),
    **dict.fromkeys(("Flatten", "Expand", "Tile", "Slice", "Split", "Pad", "Dropout"), (0,)),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), (0,)),
    "Concat": None,
    "Where": (1, 2),
}
"""Operators behind which a weight is still that weight; None stands for every input."""
MASK_FROM = 1e4
MAX_PATH = 12


class Role(StrEnum):
    PARAMETER = "parameter"
    STATISTIC = "statistic"
    CONSTANT = "constant"


def roles(model: ir.Model) -> dict[str, Role]:
    """The role of every stored tensor, bodies included, by name."""
    return {
        name: _role(value)
        for graph in all_graphs(model)
        for name, value in graph.initializers.items()
        if value.const_value is not None
    }


def _role(value: ir.Value) -> Role:
    tensor = value.const_value
    if tensor is None or tensor.dtype not in FLOATS:
        return Role.CONSTANT
    uses = list(_uses(value, MAX_PATH))
    if any(node.op_type == "BatchNormalization" and index in (3, 4) for node, index in uses):
        return Role.STATISTIC
    if tensor.size < 2:
        return Role.CONSTANT
    if any(_is_weight_input(node, index) for node, index in uses):
        return Role.PARAMETER
    joined = any(_is_joined(node) for node, _ in uses)
    return Role.PARAMETER if joined and not _is_mask_or_grid(tensor) else Role.CONSTANT


def _uses(value: ir.Value, depth: int) -> Iterator[tuple[ir.Node, int]]:
    """Where a stored value is read in the end, behind operators that only move it."""
    for use in value.uses():
        node, index = use.node, use.idx
        places = PASSED_ON.get(node.op_type, ()) if node.domain in DEFAULT_DOMAINS else ()
        if places is None or index in places:
            if depth:
                for output in node.outputs:
                    yield from _uses(output, depth - 1)
        else:
            yield node, index


def _is_joined(node: ir.Node) -> bool:
    return node.domain in DEFAULT_DOMAINS and node.op_type in SUMMANDS_AND_FACTORS


def _is_weight_input(node: ir.Node, index: int) -> bool:
    """Whether a layer or a normalization learns what it reads there."""
    if node.domain in DEFAULT_DOMAINS:
        if node.op_type in PRODUCTS:
            return True
        if node.op_type in NAMED_SO_BUT_FREE or _is_joined(node):
            return False
        name = _schema_input(node.op_type, index)
        if name is not None:
            return name.lower() in WEIGHT_NAMES or index in WEIGHT_INPUTS.get(node.op_type, ())
    return index in CONTRIBUTED.get(node.op_type, WEIGHT_INPUTS.get(node.op_type, ()))


@cache
def _schema_input(op_type: str, index: int) -> str | None:
    """What the newest schema calls an input; None where onnx knows no such operator."""
    if not onnx.defs.has(op_type):
        return None
    inputs = onnx.defs.get_schema(op_type).inputs
    return inputs[min(index, len(inputs) - 1)].name if inputs else None


def _is_mask_or_grid(tensor: ir.TensorProtocol) -> bool:
    """Numbers that forbid positions, and whole or half numbers beyond one: anchors, strides, positions."""
    values = tensor.numpy().astype(np.float64)
    release(tensor)
    largest = float(np.abs(values).max(initial=0))
    if not largest < MASK_FROM:
        return True
    return largest > 1 and bool((np.rint(2 * values) == 2 * values).all())
