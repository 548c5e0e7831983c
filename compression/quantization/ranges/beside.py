"""Adds nodes right behind a tensor, and leads what they give out of the bodies that it stands in."""

from collections.abc import Mapping
from typing import Any

import onnx_ir as ir

from compression.quantization.storage import Names


class Beside:
    """A place in a graph: behind a node, or before `front`, the graph's first node, where that is None."""

    def __init__(
        self,
        graph: ir.Graph,
        value: ir.Value,
        names: Names,
        *,
        behind: ir.Node | None,
        front: ir.Node | None,
    ) -> None:
        self.graph = graph
        self.front = front
        self.base = value.name or "tensor"
        self.names = names
        self.last = behind

    def add(
        self,
        op_type: str,
        inputs: list[ir.Value],
        suffix: str,
        dtype: ir.DataType,
        attributes: Mapping[str, Any] | None = None,
    ) -> ir.Value:
        """A node of one output, named after the tensor."""
        name = self.names(f"{self.base}_{suffix}")
        node = ir.node(op_type, inputs, dict(attributes or {}), name=name)
        node.outputs[0].name = name
        node.outputs[0].type = ir.TensorType(dtype)
        if self.last is not None:
            self.graph.insert_after(self.last, node)
        elif self.front is not None:
            self.graph.insert_before(self.front, node)
        else:
            self.graph.append(node)
        self.last = node
        return node.outputs[0]

    def cast(self, value: ir.Value, suffix: str, dtype: ir.DataType) -> ir.Value:
        return self.add("Cast", [value], suffix, dtype, {"to": dtype.value})

    def integers(self, numbers: int | list[int]) -> ir.Value:
        """A constant int64 scalar or vector."""
        tensor = ir.tensor(numbers, dtype=ir.DataType.INT64)
        return self.add("Constant", [], "constant", ir.DataType.INT64, {"value": tensor})


class Bodies:
    """The subgraphs of a graph and the nodes that own them; functions are none."""

    def __init__(self, graph: ir.Graph, names: Names) -> None:
        self.main = graph
        self.names = names
        self.owners = dict(_owned(graph))

    def graphs(self) -> tuple[ir.Graph, ...]:
        return (self.main, *self.owners)

    def only_ifs(self, graph: ir.Graph) -> bool:
        """Whether nothing but If stands around a graph."""
        while graph is not self.main:
            node = self.owners[graph]
            if node.op_type != "If" or node.domain not in ("", "ai.onnx"):
                return False
            graph = _graph_of(node)
        return True

    def lead_out(self, value: ir.Value, graph: ir.Graph) -> ir.Value:
        """The value as the main graph sees it: a further output of every If around it, empty where the other
        branch was taken."""
        while graph is not self.main:
            node = self.owners[graph]
            value = self._lift(value, graph, node)
            graph = _graph_of(node)
        return value

    def _lift(self, value: ir.Value, inner: ir.Graph, node: ir.Node) -> ir.Value:
        for attribute in node.attributes.values():
            body = attribute.as_graph()
            body.outputs.append(value if body is inner else self._nothing(body, value))
        node.resize_outputs(len(node.outputs) + 1)
        lifted = node.outputs[-1]
        lifted.name = self.names(f"{value.name}_outside")
        lifted.type = value.type
        return lifted

    def _nothing(self, body: ir.Graph, like: ir.Value) -> ir.Value:
        tensor = ir.tensor([], dtype=like.dtype)
        node = ir.node("Constant", [], {"value": tensor}, name=self.names(f"{like.name}_absent"))
        node.outputs[0].name = node.name
        node.outputs[0].type = like.type
        body.append(node)
        return node.outputs[0]


def _owned(graph: ir.Graph) -> list[tuple[ir.Graph, ir.Node]]:
    found = []
    for node in graph:
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                body = attribute.as_graph()
                found += [(body, node), *_owned(body)]
            elif attribute.type == ir.AttributeType.GRAPHS:
                for body in attribute.as_graphs():
                    found += [(body, node), *_owned(body)]
    return found


def _graph_of(node: ir.Node) -> ir.Graph:
    if not isinstance(node.graph, ir.Graph):
        raise ValueError(f"{node.name} stands in no graph")
    return node.graph
