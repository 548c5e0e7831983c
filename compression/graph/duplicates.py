"""Stores tensors with the same content once, reading one of them at a time."""

import hashlib
from collections import defaultdict

import onnx_ir as ir

from compression.graph.constants import release

Kind = tuple[ir.DataType, tuple[int, ...]]


def merge_duplicates(model: ir.Model) -> None:
    """Lets whatever reads a stored tensor read the first one of its graph that is equal, in place.

    Tensors that a caller sees, as inputs or outputs, stay.
    """
    for graph in model.graphs():
        groups: dict[Kind, list[ir.Value]] = defaultdict(list)
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and not value.is_graph_input() and not value.is_graph_output():
                groups[tensor.dtype, tuple(tensor.shape.numpy())].append(value)
        for values in groups.values():
            if len(values) > 1:
                _merge(graph, values)


def _merge(graph: ir.Graph, values: list[ir.Value]) -> None:
    first: dict[bytes, ir.Value] = {}
    for value in values:
        kept = first.setdefault(_digest(value), value)
        if kept is not value:
            ir.convenience.replace_all_uses_with(value, kept)
            del graph.initializers[value.name or ""]


def _digest(value: ir.Value) -> bytes:
    tensor = value.const_value
    if tensor is None:
        raise ValueError(f"{value.name} holds no tensor")
    if tensor.dtype == ir.DataType.STRING:
        return hashlib.sha256(repr(tensor.numpy().tolist()).encode()).digest()
    digest = hashlib.sha256(tensor.tobytes()).digest()
    release(tensor)
    return digest
