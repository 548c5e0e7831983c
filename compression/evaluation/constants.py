"""Evaluates values that depend on constants alone, such as a stored integer weight times its scale."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from compression.graph.constants import has_bodies

MAX_NODES = 60
SEARCH_DEPTH = 120
"""Values looked at behind one; those of a computed weight are fewer."""

Array = npt.NDArray[Any]


def constant_array(value: ir.Value) -> Array | None:
    """The value as an array when it is an initializer, or computed from initializers alone; else None.

    Chains such as Cast -> Mul, DequantizeLinear or Transpose are computed by ONNX's reference implementation.
    """
    if value.const_value is not None:
        return _numpy(value.const_value)
    nodes: dict[int, ir.Node] = {}
    leaves: dict[str, ir.Value] = {}
    if not _collect(value, nodes, leaves) or not all(leaves):
        return None
    return _computed(value, list(nodes.values()), leaves)


def leaves(value: ir.Value) -> tuple[ir.TensorProtocol, ...] | None:
    """The stored tensors that a value is computed from, when from these alone; else None."""
    nodes: dict[int, ir.Node] = {}
    found: dict[str, ir.Value] = {}
    if not _collect(value, nodes, found):
        return None
    constants = [
        ir.convenience.get_const_tensor(node.outputs[0]) for node in nodes.values() if not node.inputs
    ]
    tensors = [*(leaf.const_value for leaf in found.values()), *constants]
    return tuple(tensor for tensor in tensors if tensor is not None)


def behind(value: ir.Value | None) -> Iterator[ir.Value]:
    """A value, then those that it is computed from, the nearest first."""
    waiting = [value]
    for _ in range(SEARCH_DEPTH):
        current = waiting.pop(0) if waiting else None
        if current is None:
            continue
        yield current
        producer = current.producer()
        waiting += producer.inputs if producer is not None else []


def _collect(value: ir.Value, nodes: dict[int, ir.Node], leaves: dict[str, ir.Value]) -> bool:
    """Gather the nodes behind a value, in running order; False when an input is no constant, or they are too many.

    Graphs are deeper than Python's stack: what waits is kept in a list, each node once more for when its inputs are
    done.
    """
    waiting, met = [(value, False)], set[int]()
    while waiting:
        current, inputs_done = waiting.pop()
        node = current.producer()
        if node is not None and inputs_done:
            nodes[id(node)] = node
        elif current.const_value is not None:
            leaves[current.name or ""] = current
        elif node is None or has_bodies(node):
            return False
        elif id(node) not in met:
            if len(met) >= MAX_NODES:
                return False
            met.add(id(node))
            waiting.append((current, True))
            waiting += [(item, False) for item in reversed(node.inputs) if item is not None]
    return True


def _computed(value: ir.Value, nodes: list[ir.Node], leaves: dict[str, ir.Value]) -> Array | None:
    """By the model's own operator versions first; the reference lacks some, so by the newest after that."""
    constants = {
        name: _numpy(leaf.const_value) for name, leaf in leaves.items() if leaf.const_value is not None
    }
    graph = onnx.helper.make_graph(
        [ir.to_proto(node) for node in nodes],
        "constants",
        [_described(name, leaf) for name, leaf in leaves.items()],
        [onnx.helper.make_empty_tensor_value_info(value.name or "")],
    )
    own = dict(nodes[-1].graph.opset_imports) if nodes[-1].graph is not None else {}
    newest = onnx.defs.onnx_opset_version()
    for versions in ({"": newest} | own, own | {"": newest}):
        opsets = [onnx.helper.make_opsetid(domain, number) for domain, number in versions.items()]
        try:
            results: Any = ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=opsets)).run(
                None, constants
            )
        except Exception:  # noqa: BLE001
            # Operators and types that the reference does not know leave this figure out, nothing else.
            continue
        return np.asarray(results[0])
    return None


def _described(name: str, leaf: ir.Value) -> onnx.ValueInfoProto:
    tensor = leaf.const_value
    assert tensor is not None
    return onnx.helper.make_tensor_value_info(name, int(tensor.dtype), list(tensor.shape.numpy()))


def _numpy(tensor: ir.TensorProtocol) -> Array:
    return np.asarray(tensor.numpy())
