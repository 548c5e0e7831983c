"""Walks a model as protobuf messages: every graph, node and tensor, to a bounded depth."""

from collections.abc import Iterator

import onnx

from compression.errors import InvalidModel
from compression.graph.limits import MAX_NESTING

Nodes = onnx.GraphProto | onnx.FunctionProto


def graphs(model: onnx.ModelProto) -> Iterator[Nodes]:
    """The main graph, functions, and all bodies inside them.

    Raises:
        InvalidModel: bodies are nested too deep.
    """
    yield from graphs_of(model.graph)
    for function in model.functions:
        yield from graphs_of(function)


def graphs_of(graph: Nodes) -> Iterator[Nodes]:
    """A graph or function and all bodies inside it."""
    return _within(graph, 0)


def tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor that is stored anywhere: initializers, attributes, parts of sparse ones."""
    for graph in graphs(model):
        if isinstance(graph, onnx.GraphProto):
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
        else:
            for attribute in graph.attribute_proto:
                yield from _attribute_tensors(attribute)
        for node in graph.node:
            for attribute in node.attribute:
                yield from _attribute_tensors(attribute)


def _attribute_tensors(attribute: onnx.AttributeProto) -> Iterator[onnx.TensorProto]:
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    if attribute.HasField("sparse_tensor"):
        yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
    for sparse in attribute.sparse_tensors:
        yield from (sparse.values, sparse.indices)


def _within(graph: Nodes, depth: int) -> Iterator[Nodes]:
    if depth > MAX_NESTING:
        raise InvalidModel(f"bodies are nested more than {MAX_NESTING} deep")
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _within(attribute.g, depth + 1)
            for body in attribute.graphs:
                yield from _within(body, depth + 1)
