"""Layers: the nodes of a model that compute with weights of its own."""

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from compression.graph.constants import Constants
from compression.graph.operators import FLOATS, NARROW, WEIGHT_INPUTS, weight_inputs


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """A node with its weights.

    `weights` are the stored values, the main one first: where the node reads DequantizeLinear(int8) or
    Cast(int8) * scale, the stored int8 value stands here and not the node's input. Indices are followed by the
    codebook that they pick from.
    """

    name: str
    node: ir.Node
    scope: str
    weights: tuple[ir.Value, ...]
    graph: ir.Graph


def layers(model: ir.Model) -> tuple[Layer, ...]:
    """All layers in graph order, those of a body right after its node, and functions' last."""
    constants = Constants()
    found = list(_layers_in(model.graph, "", constants))
    for function in model.functions.values():
        found.extend(_layers_in(function.graph, function.name, constants))
    return tuple(found)


def shared_weights(model: ir.Model) -> dict[ir.Value, tuple[Layer, ...]]:
    """For every stored weight the layers that compute with it: a change is seen by all of them."""
    users: dict[ir.Value, list[Layer]] = {}
    for layer in layers(model):
        for value in layer.weights:
            users.setdefault(value, []).append(layer)
    return {value: tuple(owners) for value, owners in users.items()}


def replace_weight(layer: Layer, tensor: ir.TensorProtocol, *, index: int = 0) -> None:
    """Stores another tensor in place of one of a layer's weights, for every layer that shares it."""
    value = layer.weights[index]
    producer = value.producer()
    if producer is not None:
        for name in list(producer.attributes):
            del producer.attributes[name]
        producer.attributes.add(ir.AttrTensor("value", tensor))
    value.const_value = tensor
    value.dtype = tensor.dtype
    value.shape = ir.Shape(tensor.shape.numpy())


def _layers_in(graph: ir.Graph, scope: str, constants: Constants) -> Iterator[Layer]:
    for node in graph:
        weights = _weights(node, constants)
        if weights:
            yield Layer(name=node.name or "", node=node, scope=scope, weights=weights, graph=graph)
        for attribute in node.attributes.values():
            for body in _bodies(attribute):
                inner = f"{scope}/{node.name}.{attribute.name}".lstrip("/")
                yield from _layers_in(body, inner, constants)


def _bodies(attribute: ir.Attr) -> tuple[ir.Graph, ...]:
    if attribute.is_ref():
        return ()
    if attribute.type == ir.AttributeType.GRAPH:
        return (attribute.as_graph(),)
    if attribute.type == ir.AttributeType.GRAPHS:
        return tuple(attribute.as_graphs())
    return ()


def _weights(node: ir.Node, constants: Constants) -> tuple[ir.Value, ...]:
    candidates = list(weight_inputs(node))
    if not candidates or all(value in constants for value in node.inputs if value is not None):
        return ()
    found: list[ir.Value] = []
    for value in candidates:
        source = constants.source(value)
        if source is not None and source not in found and _is_weight(node, value, source):
            found.append(source)
            found.extend(_codebook(value, found, constants))
    return tuple(found)


def _codebook(value: ir.Value, found: list[ir.Value], constants: Constants) -> list[ir.Value]:
    book = constants.codebook(value)
    tensor = None if book is None else ir.convenience.get_const_tensor(book)
    return (
        [book]
        if book is not None and book not in found and tensor is not None and tensor.dtype in FLOATS
        else []
    )


def _is_weight(node: ir.Node, given: ir.Value, source: ir.Value) -> bool:
    """Several floats; or integers where the operator, or a chain before it, takes them for weights."""
    tensor = ir.convenience.get_const_tensor(source)
    if tensor is None or tensor.size < 2:
        return False
    if tensor.dtype in FLOATS:
        return True
    return tensor.dtype in NARROW and (given is not source or node.op_type in WEIGHT_INPUTS)
