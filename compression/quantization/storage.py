"""Weight-only storage: integers in the file, floats in the runtime.

A weight W becomes Cast(integers) * scale, which onnxruntime folds into one constant when it loads the model
(inside bodies of If and Loop as well), so that the file is smaller and the kernels are the ones that ran
before. The chain needs nothing beyond opset 7, unlike DequantizeLinear per channel. The product is always
formed in float32 and cast once more for other float types, since float16 scales would lose digits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from compression.quantization.affine import dequantize
from compression.quantization.weights import CHAIN_BYTES, QuantizedWeight, quantize_weight

LAZY_BYTES = 8 << 20


def blocker(value: ir.Value) -> str | None:
    """Why a constant cannot be replaced by a chain, or None where it can."""
    if value.is_graph_output():
        return "it is itself an output of the model"
    if value.is_graph_input():
        return "the caller may override it: it is an input of the graph with a default"
    if ir.convenience.get_const_tensor(value) is None:
        return "it is no constant"
    return None


def stored_bytes(weight: QuantizedWeight, *, source: ir.DataType) -> int:
    """Bytes of the chain in the file: integers, scales, nodes and names."""
    casts = 0 if source == ir.DataType.FLOAT else CHAIN_BYTES // 3
    return weight.integers.nbytes + weight.parameters.scale.nbytes + CHAIN_BYTES + casts


@dataclass(frozen=True, kw_only=True)
class Chain:
    """A stored weight in the graph, which can be given more bits and back without touching its nodes."""

    integers: ir.Value
    scale: ir.Value
    source: ir.TensorProtocol
    axes: tuple[int, ...]
    followers: "tuple[Follower, ...]" = ()
    """Hear of the error of every rounding."""

    @property
    def can_widen(self) -> bool:
        return self.integers.producer() is None

    def set_bits(self, bits: int) -> None:
        """Quantize the source again, to int8 (8) or int16 (16), unless it is so already."""
        if self.integers.dtype == (ir.DataType.INT8 if bits <= 8 else ir.DataType.INT16):
            return
        made = quantize_weight(as_numpy(self.source), self.axes, bits=bits)
        self.integers.const_value = _integers(self.source, made, self.axes, bits)
        self.integers.type = ir.TensorType(self.integers.const_value.dtype)
        self.scale.const_value = ir.tensor(made.parameters.scale)
        self.tell(made)

    def tell(self, made: QuantizedWeight) -> None:
        """Lets those who follow know how far off the stored weight is."""
        if self.followers:
            error = as_numpy(self.source) - dequantize(made.integers, made.parameters)
            for follower in self.followers:
                follower.follow(error)
            release(self.source)


class Follower(Protocol):
    """Something that depends on how a weight was rounded."""

    def follow(self, error: NDArray[np.floating]) -> None:
        """W - W_q, in the weight's shape."""


def store(
    value: ir.Value,
    weight: QuantizedWeight,
    axes: tuple[int, ...],
    names: "Names",
    *,
    bits: int = 8,
    followers: "tuple[Follower, ...]" = (),
) -> Chain:
    """Replace the constant `value` by a chain, for every user at once.

    `value` is an initializer of a graph or the output of a Constant node (inside a function). A large weight
    is not held in memory: its integers are made again from the source when the model is written.
    """
    tensor = _tensor(value)
    name = value.name or "weight"
    stored, first = constant(value, f"{name}_integers", _integers(tensor, weight, axes, bits), names)
    scale, second = constant(value, f"{name}_scale", ir.tensor(weight.parameters.scale), names)
    cast = _node("Cast", [stored], names(f"{name}_cast"), to=ir.DataType.FLOAT.value)
    product = _node("Mul", [cast.outputs[0], scale], names(f"{name}_dequantized"))
    nodes = [*first, *second, cast, product]
    if tensor.dtype != ir.DataType.FLOAT:
        nodes.append(_node("Cast", [product.outputs[0]], names(f"{name}_back"), to=tensor.dtype.value))
    swap(value, nodes)
    chain = Chain(integers=stored, scale=scale, source=tensor, axes=axes, followers=followers)
    chain.tell(weight)
    return chain


def store_narrow(value: ir.Value, narrow: ir.TensorProtocol, names: "Names") -> None:
    """Replace the constant by Cast(narrow): a narrower float in the file, the original type in the
    runtime."""
    tensor = _tensor(value)
    name = value.name or "weight"
    stored, nodes = constant(value, f"{name}_{narrow.dtype.name.lower()}", narrow, names)
    swap(value, [*nodes, _node("Cast", [stored], names(f"{name}_cast"), to=tensor.dtype.value)])


class Names:
    """Fresh value names: unique over the model with its bodies and functions."""

    def __init__(self, model: ir.Model) -> None:
        self.taken: set[str] = set()
        for graph in (*model.graphs(), *(function.graph for function in model.functions.values())):
            self.taken.update(value.name or "" for value in (*graph.inputs, *graph.initializers.values()))
            for node in ir.traversal.RecursiveGraphIterator(graph):
                self.taken.update(output.name or "" for output in node.outputs)

    def __call__(self, base: str) -> str:
        name, count = base, 1
        while name in self.taken:
            name, count = f"{base}_{count}", count + 1
        self.taken.add(name)
        return name


def constant(
    beside: ir.Value, base: str, tensor: ir.TensorProtocol, names: Names
) -> tuple[ir.Value, tuple[ir.Node, ...]]:
    """A new constant in the graph of another one, of the same kind: an initializer, or a Constant node, which
    is all that functions have."""
    name = names(base)
    if beside.producer() is not None:
        node = _node("Constant", [], name, value=ir.AttrTensor("value", tensor))
        return node.outputs[0], (node,)
    value = ir.Value(
        name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy()), const_value=tensor
    )
    if beside.graph is None:
        raise ValueError(f"{beside.name} belongs to no graph")
    beside.graph.register_initializer(value)
    return value, ()


def swap(value: ir.Value, chain: Sequence[ir.Node]) -> None:
    """Put the chain first in the graph and let its last output take the place and name of the constant
    `value`."""
    owner, producer, result = value.graph, value.producer(), chain[-1].outputs[0]
    if owner is None:
        raise ValueError(f"{value.name} belongs to no graph")
    result.type, result.shape = value.type, value.shape
    ir.convenience.replace_all_uses_with(value, result)
    name = value.name
    if producer is not None:
        owner.remove(producer, safe=True)
    else:
        del owner.initializers[name or ""]
    value.name, result.name = None, name
    owner.insert_before(owner[0], chain)


def _node(op_type: str, inputs: Sequence[ir.Value], output: str, **attributes: Any) -> ir.Node:
    node = ir.node(op_type, inputs, attributes or None, name=output)
    node.outputs[0].name = output
    return node


def _tensor(value: ir.Value) -> ir.TensorProtocol:
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None:
        raise ValueError(f"{value.name} is no constant")
    return tensor


def _integers(
    tensor: ir.TensorProtocol, weight: QuantizedWeight, axes: tuple[int, ...], bits: int
) -> ir.TensorProtocol:
    if weight.integers.nbytes < LAZY_BYTES:
        return ir.tensor(weight.integers)
    dtype = weight.parameters.dtype

    def again() -> ir.TensorProtocol:
        made = quantize_weight(as_numpy(tensor), axes, bits=bits)
        release(tensor)
        return ir.tensor(made.integers)

    return ir.LazyTensor(again, dtype=ir.DataType.from_numpy(dtype), shape=ir.Shape(tensor.shape.numpy()))


def as_numpy(tensor: ir.TensorProtocol) -> NDArray[Any]:
    """The values in a type numpy computes with: bfloat16 comes as float32."""
    array = tensor.numpy()
    return array.astype(np.float32) if tensor.dtype == ir.DataType.BFLOAT16 else array


def release(tensor: ir.TensorProtocol) -> None:
    """Let go of the pages of an external tensor; it is mapped again when it is next read."""
    if isinstance(tensor, ir.ExternalTensor):
        tensor.release()


def integer_attributes(node: ir.Node) -> dict[str, int]:
    return {
        name: attr.as_int() for name, attr in node.attributes.items() if attr.type == ir.AttributeType.INT
    }
