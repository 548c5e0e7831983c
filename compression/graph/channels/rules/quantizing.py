"""Quantization: scales and zero points of each channel follow it."""

from collections.abc import Sequence

import onnx_ir as ir

from compression.graph.channels.attributes import integer
from compression.graph.channels.labels import Labels
from compression.graph.channels.reading import Reading, Rule


def linear(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    """QuantizeLinear and DequantizeLinear: one scale, one for each channel, or one for each block."""
    data = reading.axes(node, 0)
    for index in (1, 2):
        labels = reading.optional_axes(node, index)
        if labels is not None and len(labels) == 1 and data:
            reading.broadcast(data[integer(node, "axis", 1) % len(data)], labels[0])
        elif labels:
            for label in (*data, *labels):
                reading.lock(label, node, "has scales for blocks of them")
    return [data]


def dynamic(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    data = reading.axes(node, 0)
    for label in data:
        reading.lock(label, node, "measures the range of all together")
    return [data, (), ()]


QUANTIZING: dict[str, Rule] = {
    "DequantizeLinear": linear,
    "DynamicQuantizeLinear": dynamic,
    "QuantizeLinear": linear,
}
