"""Which nodes of the main graph would compute in integers, and which tensors that puts between Q and DQ.

Numbered as the code follows it:
1. Kernels: Conv, Gemm and MatMul with a constant float32 weight, as far as the chosen groups and layers
allow.
   A Conv's output is quantized always, since the integer kernel has no float output; the others' only where
   another kernel reads it. A Relu or Clip right behind belongs to the kernel: the runtime drops it.
2. Elementwise nodes (Add, Mul, Concat, average pooling, LeakyRelu, Sigmoid) whose inputs are all quantized.
3. Nodes that only move data (MaxPool, Reshape, Transpose, ...) between quantized nodes: their output takes
the
   parameters of their input, so that the runtime passes integers through.
"""

from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from typing import Literal

import onnx_ir as ir

from compression.graph.operators import is_operator
from compression.quantization.storage import integer_attributes

Group = Literal["conv", "depthwise", "matmul", "elementwise"]
ALL_GROUPS: frozenset[str] = frozenset({"conv", "depthwise", "matmul", "elementwise"})

_ELEMENTWISE = frozenset({"Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid"})
_MOVERS = frozenset({"MaxPool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze"})


@dataclass(kw_only=True)
class Region:
    """Nodes that compute in integers, and the tensors quantized for them."""

    kernels: dict[str, ir.Node] = field(default_factory=dict)
    """Weighted nodes by layer name."""
    made: dict[ir.Value, ir.Value] = field(default_factory=dict)
    """Tensors that a quantized node writes, with the tensor whose parameters they take (mostly
    themselves)."""
    read: dict[ir.Value, list[ir.Node]] = field(default_factory=dict)
    """Tensors that quantized nodes read, with those readers."""

    @property
    def touched(self) -> tuple[ir.Value, ...]:
        """Every tensor between Q and DQ, moved ones included."""
        return tuple(dict.fromkeys((*self.made, *self.read)))

    @property
    def tensors(self) -> tuple[ir.Value, ...]:
        """Every tensor that needs parameters of its own."""
        own = [value for value, source in self.made.items() if value is source]
        return tuple(dict.fromkeys((*own, *(value for value in self.read if value not in self.made))))


def find_region(graph: ir.Graph, layers: Set[str], groups: Set[str], known: Set[str] | None = None) -> Region:
    """The region of these layers and groups; `known` limits it to tensors with a learned range."""
    region = Region()
    nodes = list(graph)
    for node in nodes:
        if node.name and node.name in layers and kernel_group(node) in groups and _ranges_known(node, known):
            _add_kernel(region, node.name, node)
    for node in nodes:
        if is_operator(node, "Gemm", "MatMul") and node.name in region.kernels:
            _add_output(region, node, only_if_read=True)
    if "elementwise" in groups:
        for node in nodes:
            _add_elementwise(region, node, known)
    for node in reversed(nodes):
        _add_mover(region, node)
    _settle_movers(region, nodes)
    return region


def kernel_group(node: ir.Node) -> Group | None:
    """Which group a node belongs to, or None where no integer kernel would take it."""
    return None if refusal(node) else _group(node)


def refusal(node: ir.Node) -> str | None:
    """Why no integer kernel would take a weighted node, or None where one would."""
    if node.domain not in ("", "ai.onnx") or node.op_type not in {"Conv", "Gemm", "MatMul"}:
        return f"there is no integer kernel for {node.op_type}"
    if len(node.inputs) < 2 or node.inputs[0] is None or constant_of(node.inputs[0]) is not None:
        return "its first input is no activation"
    if node.op_type == "Gemm" and not _plain_gemm(node):
        return "Gemm with alpha, beta or transA set"
    return _weight_refusal(node) or _bias_refusal(node)


def fused_output(node: ir.Node) -> ir.Value:
    """The node's output, or that of a Relu or Clip that alone reads it."""
    output = node.outputs[0]
    users = list(output.uses())
    if (
        len(users) == 1
        and not output.is_graph_output()
        and users[0].idx == 0
        and is_operator(users[0].node, "Relu", "Clip")
        and users[0].node.graph is node.graph
    ):
        return users[0].node.outputs[0]
    return output


def constant_of(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor of an initializer that nobody may override."""
    if value is None or value.is_graph_input():
        return None
    return value.const_value


def constant_shape(value: ir.Value) -> tuple[int, ...]:
    tensor = constant_of(value)
    return tuple(int(size) for size in tensor.shape.numpy()) if tensor is not None else ()


def _group(node: ir.Node) -> Group:
    if node.op_type != "Conv":
        return "matmul"
    group = node.attributes.get_int("group", 1)
    return "depthwise" if group > 1 and constant_shape(_required(node.inputs[1]))[1] == 1 else "conv"


def _weight_refusal(node: ir.Node) -> str | None:
    weight = constant_of(node.inputs[1])
    if weight is None:
        return "its weight is no constant"
    if weight.dtype != ir.DataType.FLOAT:
        return f"its weight is {weight.dtype.name.lower()}, not float32"
    if node.op_type != "Conv" and len(weight.shape) != 2:
        return "its weight is no matrix"
    return None


def _bias_refusal(node: ir.Node) -> str | None:
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is None:
        return None
    tensor = constant_of(bias)
    vector = tensor is not None and tensor.dtype == ir.DataType.FLOAT and len(tensor.shape) == 1
    rows = constant_shape(_required(node.inputs[1]))
    channels = rows[0] if node.op_type == "Conv" or integer_attributes(node).get("transB", 0) else rows[-1]
    fits = vector and constant_shape(bias) == (channels,)
    return None if fits else "its bias is no constant vector with one entry per channel"


def _plain_gemm(node: ir.Node) -> bool:
    alpha, beta = node.attributes.get_float("alpha", 1.0), node.attributes.get_float("beta", 1.0)
    return alpha == 1.0 and beta == 1.0 and not node.attributes.get_int("transA", 0)


def _ranges_known(node: ir.Node, known: Set[str] | None) -> bool:
    if known is None:
        return True
    needed = [_required(node.inputs[0])] + ([fused_output(node)] if node.op_type == "Conv" else [])
    return all(value.name in known for value in needed)


def _add_kernel(region: Region, name: str, node: ir.Node) -> None:
    region.kernels[name] = node
    region.read.setdefault(_required(node.inputs[0]), []).append(node)
    if node.op_type == "Conv":
        _add_output(region, node, only_if_read=False)


def _add_output(region: Region, node: ir.Node, *, only_if_read: bool) -> None:
    output = fused_output(node)
    if not only_if_read or output in region.read:
        region.made[output] = output


def _add_elementwise(region: Region, node: ir.Node, known: Set[str] | None) -> None:
    if not is_operator(node, *_ELEMENTWISE) or node.outputs[0].is_graph_output():
        return
    inputs = [value for value in node.inputs if value is not None]
    output = fused_output(node)
    if not inputs or not all(value in region.made for value in inputs):
        return
    if known is not None and output.name not in known:
        return
    for value in dict.fromkeys(inputs):
        region.read.setdefault(value, []).append(node)
    region.made[output] = output


def _add_mover(region: Region, node: ir.Node) -> None:
    """Take a mover whose output is read by quantized nodes; its input may be made by one, which is settled
    later."""
    if not is_operator(node, *_MOVERS) or not node.inputs or node.inputs[0] is None:
        return
    output = node.outputs[0]
    if output not in region.read or output.is_graph_output() or len(list(_live(node))) > 1:
        return
    region.read.setdefault(_required(node.inputs[0]), []).append(node)
    region.made[output] = _required(node.inputs[0])


def _settle_movers(region: Region, nodes: list[ir.Node]) -> None:
    """Point moved tensors at the parameters of their origin; drop movers whose input no quantized node
    makes."""
    for node in nodes:
        output = node.outputs[0] if node.outputs else None
        if output is None or not is_operator(node, *_MOVERS) or region.made.get(output) is not node.inputs[0]:
            continue
        source = _required(node.inputs[0])
        if source in region.made:
            region.made[output] = region.made[source]
            continue
        del region.made[output]
        region.read[source] = [reader for reader in region.read[source] if reader is not node]
        if not region.read[source]:
            del region.read[source]


def _live(node: ir.Node) -> Iterator[ir.Value]:
    return (output for output in node.outputs if output.name and (output.uses() or output.is_graph_output()))


def _required(value: ir.Value | None) -> ir.Value:
    if value is None:
        raise ValueError("a required input is missing")
    return value
