"""What exporters leave in a model beside what computes."""

from collections.abc import Iterator
from typing import Any

import onnx_ir as ir

from compression.graph.naming import all_graphs
from compression.graph.operators import DEFAULT_DOMAINS


def strip(model: ir.Model) -> int:
    """Takes away texts and metadata everywhere, and the noted types of values that every runtime infers by itself.

    Names, inputs and outputs stay, and so does what an operator outside ONNX's own set gives, whose types nobody can
    infer. Returns how many entries went.
    """
    texts = sum(_clear(item) for item in _parts(model))
    tensors = sum(_plain(value) for graph in all_graphs(model) for value in graph.initializers.values())
    return texts + tensors + sum(_untyped(value) for value in _values(model))


def _parts(model: ir.Model) -> Iterator[Any]:
    yield model
    yield from model.functions.values()
    for graph in all_graphs(model):
        yield graph
        yield from (*graph.inputs, *graph.outputs, *graph.initializers.values())
        for node in graph:
            yield node
            yield from node.outputs
            yield from node.attributes.values()


def _clear(item: Any) -> int:
    """Of anything that has a doc string or metadata, or both."""
    found = 0
    if getattr(item, "doc_string", None):
        item.doc_string = None
        found += 1
    metadata = getattr(item, "metadata_props", None)
    if metadata:
        found += len(metadata)
        metadata.clear()
    return found


def _plain(value: ir.Value) -> int:
    """A tensor as read from a file carries its notes with it: one without them takes its place."""
    tensor = value.const_value
    if tensor is None or not (tensor.doc_string or tensor.metadata_props):
        return 0
    if tensor.dtype is ir.DataType.STRING:
        return 0
    value.const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)
    return 1


def _values(model: ir.Model) -> Iterator[ir.Value]:
    for graph in all_graphs(model):
        for node in graph:
            if node.domain in DEFAULT_DOMAINS:
                yield from (output for output in node.outputs if not output.is_graph_output())


def _untyped(value: ir.Value) -> int:
    if value.type is None and value.shape is None:
        return 0
    value.type, value.shape = None, None
    return 1
