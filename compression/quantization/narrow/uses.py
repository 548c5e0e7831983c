"""What reads a stored weight, and whether all of it reads the matrix the same way round."""

from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

from compression.graph.operators import DEFAULT_DOMAINS
from compression.quantization.storage import integer_attributes

Kind = Literal["product", "gather"]


@dataclass(frozen=True, kw_only=True)
class Use:
    """A node that reads a weight of two axes, as it is or transposed."""

    node: ir.Node
    kind: Kind
    row_axis: int
    """Of the stored weight: the outputs of a product, the entries of an embedding."""


def uses_of(value: ir.Value) -> tuple[Use, ...] | None:
    """Everything that reads the weight; None where something reads it in a way that has no kernel for blocks."""
    if value.shape is None or len(value.shape) != 2:
        return None
    return _uses(value, flipped=False)


def transposes_of(value: ir.Value) -> tuple[ir.Node, ...]:
    """The nodes between a weight and what reads it."""
    found: list[ir.Node] = []
    for use in value.uses():
        if use.node.op_type in ("Transpose", "Identity"):
            found += [use.node, *transposes_of(use.node.outputs[0])]
    return tuple(found)


def _uses(value: ir.Value, *, flipped: bool) -> tuple[Use, ...] | None:
    if value.is_graph_output():
        return None
    found: list[Use] = []
    for node, index in value.uses():
        if node.domain not in DEFAULT_DOMAINS:
            return None
        more = (
            _through(node, flipped)
            if node.op_type in ("Transpose", "Identity")
            else _direct(node, index, flipped)
        )
        if more is None:
            return None
        found += more
    return tuple(found)


def _through(node: ir.Node, flipped: bool) -> tuple[Use, ...] | None:
    if node.op_type == "Identity":
        return _uses(node.outputs[0], flipped=flipped)
    order = node.attributes.get("perm")
    turns = order is None or list(order.as_ints()) == [1, 0]
    return _uses(node.outputs[0], flipped=flipped != turns)


def _direct(node: ir.Node, index: int, flipped: bool) -> tuple[Use, ...] | None:
    kind: Kind
    if node.op_type == "MatMul" and index == 1:
        kind, axis = "product", 1
    elif node.op_type == "Gemm" and index == 1 and _plain(node):
        kind, axis = "product", 0 if integer_attributes(node).get("transB", 0) else 1
    elif node.op_type == "Gather" and index == 0 and integer_attributes(node).get("axis", 0) in (0, -2):
        kind, axis = "gather", 0
    else:
        return None
    return (Use(node=node, kind=kind, row_axis=1 - axis if flipped else axis),)


def _plain(node: ir.Node) -> bool:
    """A Gemm that is a product and a sum, nothing scaled and its first input not transposed."""
    attributes = node.attributes
    factors = [attributes[name].as_float() for name in ("alpha", "beta") if name in attributes]
    return all(factor == 1.0 for factor in factors) and not integer_attributes(node).get("transA", 0)
