"""Multiply-accumulates of a model for one sample, counted from shapes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import onnx_ir as ir

from compression.graph.naming import all_graphs
from compression.graph.shapes import inferred_proto

RECURRENT = frozenset({"LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"})
Sizes = tuple[int, ...] | None
"""The shape of a tensor; None where a size is unknown."""


@dataclass(frozen=True, kw_only=True)
class Macs:
    """Counts by node name. None stands for a node that multiplies, but whose shapes are unknown."""

    nodes: Mapping[str, int | None]

    @property
    def total(self) -> int | None:
        known = [count for count in self.nodes.values() if count is not None]
        return sum(known) if known else None

    @property
    def complete(self) -> bool:
        return None not in self.nodes.values()


def count_macs(model: ir.Model) -> Macs:
    """Counts every node that multiplies matrices, with free batch axes set to 1.

    Bodies of If, Loop and Scan and functions count once each, as if they ran once.
    """
    proto = inferred_proto(model, batch=1)
    if proto is None:
        return Macs(nodes={node.name or "": None for node in _nodes(model) if node.op_type in COUNTERS})
    concrete = ir.serde.deserialize_model(proto)
    batch = _fixed_batch(concrete)
    counts: dict[str, int | None] = {}
    for node in _nodes(concrete):
        counter = COUNTERS.get(node.op_type)
        if counter is not None:
            count = counter(node)
            counts[node.name or ""] = None if count is None else count // batch
    return Macs(nodes=counts)


def _nodes(model: ir.Model) -> list[ir.Node]:
    return [node for graph in all_graphs(model) for node in graph]


def _fixed_batch(model: ir.Model) -> int:
    """The batch size that every input and output declares, where they agree; else 1.

    Recurrent networks have their steps on the first axis, so nothing can be told there.
    """
    if any(node.op_type in RECURRENT for node in _nodes(model)):
        return 1
    stored = model.graph.initializers
    values = [value for value in (*model.graph.inputs, *model.graph.outputs) if value.name not in stored]
    first = {value.shape[0] if value.shape else None for value in values}
    size = first.pop() if len(first) == 1 else None
    return size if isinstance(size, int) and size > 1 else 1


def sizes(value: ir.Value | None) -> Sizes:
    if value is None or value.shape is None:
        return None
    known = [size for size in value.shape if isinstance(size, int) and size >= 0]
    return tuple(known) if len(known) == len(value.shape) else None


def _input(node: ir.Node, index: int) -> Sizes:
    return sizes(node.inputs[index]) if index < len(node.inputs) else None


def _convolution(weight: int, *, transposed: bool = False) -> Callable[[ir.Node], int | None]:
    """One multiplication per kernel element of a group, for every output element; transposed, every input."""

    def count(node: ir.Node) -> int | None:
        kernel, walked = _input(node, weight), _input(node, 0) if transposed else sizes(node.outputs[0])
        return None if kernel is None or walked is None else prod(walked) * prod(kernel[1:])

    return count


def _product(left: int, right: int, *, gemm: bool = False) -> Callable[[ir.Node], int | None]:
    """Every output element takes K multiplications; K is the last axis of the left factor."""

    def count(node: ir.Node) -> int | None:
        out, first, second = sizes(node.outputs[0]), _input(node, left), _input(node, right)
        if not first and not second:
            return None
        turned = gemm and _integer(node, "transA", 0)
        if first:
            depth = first[-2] if turned and len(first) > 1 else first[-1]
        else:
            depth = (second or (1,))[-1 if _integer(node, "transB", 0) else max(-2, -len(second or (1,)))]
        return None if out is None else prod(out) * depth

    return count


def _recurrent(node: ir.Node) -> int | None:
    """Per step and sample, every element of the input and recurrence weights of all directions once."""
    data, weight, recurrence = _input(node, 0), _input(node, 1), _input(node, 2)
    if data is None or weight is None or recurrence is None or len(data) != 3:
        return None
    return data[0] * data[1] * (prod(weight) + prod(recurrence))


def _block_product(node: ir.Node) -> int | None:
    out = sizes(node.outputs[0])
    depth = _integer(node, "K", 0)
    if out is None:
        first = _input(node, 0)
        out = None if first is None else (*first[:-1], _integer(node, "N", 0))
    return None if out is None else prod(out) * depth


def _einsum(node: ir.Node) -> int | None:
    """One multiplication per combination of all indices, and one more for every factor beyond two."""
    attribute = node.attributes.get("equation")
    if attribute is None or "." in attribute.as_string() or len(node.inputs) < 2:
        return None
    terms = attribute.as_string().replace(" ", "").partition("->")[0].split(",")
    extent: dict[str, int] = {}
    for term, value in zip(terms, node.inputs, strict=False):
        shape = sizes(value)
        if shape is None or len(shape) != len(term):
            return None
        extent.update(zip(term, shape, strict=True))
    return prod(extent.values()) * (len(terms) - 1)


def _attention(node: ir.Node) -> int | None:
    """Query times key and weights times value; com.microsoft's Attention projects its input first."""
    data, weight = _input(node, 0), _input(node, 1)
    if data is None or weight is None or len(data) != 3:
        return None
    if node.domain != "com.microsoft" or node.op_type != "Attention":
        return 2 * data[0] * data[1] * weight[-2] * data[2] if len(weight) >= 2 else None
    hidden = weight[-1] // 3
    return data[0] * data[1] * (weight[0] * weight[-1] + 2 * data[1] * hidden)


def _integer(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    if attribute is None or attribute.is_ref():
        return default
    return attribute.as_int() if attribute.type == ir.AttributeType.INT else default


COUNTERS: dict[str, Callable[[ir.Node], int | None]] = {
    "Conv": _convolution(1),
    "FusedConv": _convolution(1),
    "ConvInteger": _convolution(1),
    "QLinearConv": _convolution(3),
    "DeformConv": _convolution(1),
    "ConvTranspose": _convolution(1, transposed=True),
    "MatMul": _product(0, 1),
    "FusedMatMul": _product(0, 1),
    "MatMulInteger": _product(0, 1),
    "MatMulIntegerToFloat": _product(0, 1),
    "DynamicQuantizeMatMul": _product(0, 1),
    "QLinearMatMul": _product(0, 3),
    "Gemm": _product(0, 1, gemm=True),
    "FusedGemm": _product(0, 1, gemm=True),
    "QGemm": _product(0, 3, gemm=True),
    "MatMulNBits": _block_product,
    "MatMulBnb4": _block_product,
    "LSTM": _recurrent,
    "DynamicQuantizeLSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "Einsum": _einsum,
    "Attention": _attention,
    "MultiHeadAttention": _attention,
}
