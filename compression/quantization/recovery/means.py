"""Means of layers' outputs by channel, reduced by the model itself in one pass over the data."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from compression import runtime
from compression.method import StepContext
from compression.quantization.probe import Feeds
from compression.quantization.ranges.beside import Beside
from compression.quantization.regions import constant_of
from compression.quantization.storage import Names

Means = dict[str, NDArray[np.float64]]
Ends = tuple[ir.Value, ir.Value]
_FLOAT, _WHOLE = ir.DataType.FLOAT, ir.DataType.INT64


def output_means(
    model: ir.Model, layers: Sequence[str], feeds: Iterable[Feeds], context: StepContext
) -> Means:
    """E[y] of Conv, Gemm and MatMul nodes of the main graph, by name, of shape (output channels,).

    Every position of every sample counts alike. Nothing behind the last of the layers is computed. Layers whose
    output holds NaN or infinity, or no value, are left out.

    Args:
        model: stays as it is; of opset 13 at least.
        layers: names of nodes.
        feeds: inputs.
        context: where to run.

    Raises:
        DataMismatch: the model fails on a feed.
    """
    return _means(model, layers, feeds, context, _output_sums)


def input_means(
    model: ir.Model, layers: Mapping[str, int], feeds: Iterable[Feeds], context: StepContext
) -> Means:
    """E[x] of what Conv, Gemm and MatMul nodes of the main graph read first, of shape (input channels,).

    As `output_means`, but that `layers` gives the number of input channels of each. A product's channels lie along the
    last axis, a convolution's along the second.
    """

    def sums(graph: ir.Graph, node: ir.Node, names: Names) -> Ends:
        value = node.inputs[0]
        if value is None:
            raise ValueError(f"{node.name} has no input")
        place = Beside(graph, value, names, behind=None, front=node)
        return _reduced(place, value, layers[node.name or ""], node.op_type == "Conv")

    return _means(model, tuple(layers), feeds, context, sums)


def _means(
    model: ir.Model,
    layers: Sequence[str],
    feeds: Iterable[Feeds],
    context: StepContext,
    sums_of: Callable[[ir.Graph, ir.Node, Names], Ends],
) -> Means:
    copy = model.clone()
    names = Names(copy)
    found = {node.name: node for node in copy.graph if node.name in set(layers)}
    ends = {name: sums_of(copy.graph, found[name], names) for name in layers}
    copy.graph.outputs[:] = [value for pair in ends.values() for value in pair]
    session = runtime.open_session(copy, device=context.device, threads=context.threads, in_order=True)
    sums: dict[str, Any] = dict.fromkeys(layers, 0.0)
    counts = dict.fromkeys(layers, 0)
    for feed in feeds:
        outputs = runtime.run(session, feed)
        for name, (total, size) in ends.items():
            part = outputs[total.name or ""].astype(np.float64)
            sums[name] = sums[name] + part
            counts[name] += int(outputs[size.name or ""]) // max(part.size, 1)
    return _divided(sums, counts)


def output_channels(node: ir.Node) -> int:
    """How many channels a Conv, Gemm or MatMul with a constant weight gives."""
    tensor = constant_of(node.inputs[1])
    if tensor is None:
        return _quantized_channels(node)
    shape = tensor.shape.numpy()
    first = node.op_type == "Conv" or (node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 1)
    return int(shape[0] if first else shape[-1])


def _quantized_channels(node: ir.Node) -> int:
    """Of a weight behind DequantizeLinear: it has one scale per output channel."""
    producer = node.inputs[1].producer() if node.inputs[1] is not None else None
    scale = None if producer is None else constant_of(producer.inputs[1])
    if scale is None:
        raise ValueError(f"{node.name} has no constant weight")
    return int(scale.size)


def _output_sums(graph: ir.Graph, node: ir.Node, names: Names) -> Ends:
    output = node.outputs[0]
    place = Beside(graph, output, names, behind=node, front=None)
    return _reduced(place, output, output_channels(node), node.op_type == "Conv")


def _reduced(place: Beside, value: ir.Value, channels: int, second: bool) -> Ends:
    """The sum over all but the channels, which are the second axis or the last, and how many values there are."""
    shape = [0, channels, -1] if second else [-1, channels, 1]
    rows = place.add("Reshape", [value, place.integers(shape)], "rows", _FLOAT)
    axes = place.integers([0, 2])
    total = place.add("ReduceSum", [rows, axes], "sum", _FLOAT, {"keepdims": 0})
    return total, place.add("Size", [value], "size", _WHOLE)


def _divided(sums: Mapping[str, Any], counts: Mapping[str, int]) -> Means:
    means = {name: sums[name] / count for name, count in counts.items() if count}
    return {name: mean for name, mean in means.items() if np.isfinite(mean).all()}
