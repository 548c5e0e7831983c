"""If, Loop and Scan: bodies are read as graphs of their own; what flows in or out stays."""

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from compression.graph.channels.labels import Labels
from compression.graph.channels.notes import describe
from compression.graph.channels.reading import Reading, Rule


def bodies(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    for body in _bodies(node):
        for value in _captured(reading, body):
            for label in reading.axes_of(value) or ():
                reading.lock(label, node, "reads them in a body")
        for value in body.inputs:
            reading.labels[value] = reading.rigid_axes(value, f"they flow into a body of {describe(node)}")
        reading.read_graph(body, f"they flow out of a body of {describe(node)} as {{!r}}")
    return [None for _ in node.outputs]


def _bodies(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def _captured(reading: Reading, body: ir.Graph) -> Iterator[ir.Value]:
    """Values from outside that are computed there; stored tensors are as good inside as outside."""
    for inner in body.all_nodes():
        for value in inner.inputs:
            if value is not None and value in reading.labels and value.const_value is None:
                yield value


CONTROL: dict[str, Rule] = dict.fromkeys(("If", "Loop", "Scan", "SequenceMap"), bodies)
