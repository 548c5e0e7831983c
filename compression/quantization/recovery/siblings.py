"""Puts float layers beside quantized ones, on the same quantized inputs, to see what the weights alone do."""

from collections.abc import Sequence

import onnx_ir as ir

from compression.quantization.storage import Names


def add_siblings(quantized: ir.Model, floats: ir.Model, layers: Sequence[str]) -> dict[str, str]:
    """For each layer a node of the same operator with the weights of `floats`; names by the layer's name.

    The quantized layer stays as it is; nothing reads the sibling's output.
    """
    names = Names(quantized)
    chosen = set(layers)
    originals = {name: node for node in floats.graph if (name := node.name) in chosen}
    beside = [node for node in quantized.graph if node.name in chosen]
    return {name: _add(node, originals[name], names) for node in beside if (name := node.name)}


def _add(node: ir.Node, original: ir.Node, names: Names) -> str:
    graph = node.graph
    if not isinstance(graph, ir.Graph):
        raise ValueError(f"{node.name} stands in no graph")
    given = [node.inputs[0], *(value and _copy(graph, value, names) for value in original.inputs[1:])]
    name = names(f"{node.name}_in_floats")
    twin = ir.Node("", node.op_type, given, list(original.attributes.values()), name=name)
    twin.outputs[0].name, twin.outputs[0].type = name, original.outputs[0].type
    graph.insert_after(node, twin)
    return name


def _copy(graph: ir.Graph, value: ir.Value, names: Names) -> ir.Value:
    fresh = ir.Value(
        name=names(f"{value.name}_in_floats"),
        type=value.type,
        shape=value.shape,
        const_value=value.const_value,
    )
    graph.register_initializer(fresh)
    return fresh
