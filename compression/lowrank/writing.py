"""Puts a chain into the graph: the layer's own node becomes the last of it, with its name, output and bias."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from compression.lowrank.factors import Built
from compression.lowrank.finding import Place
from compression.lowrank.geometry import StageShape
from compression.quantization.storage import Names

Array = NDArray[Any]


def write_chain(place: Place, built: Built, names: Names) -> None:
    """Replace the weight of all layers of a place by the factors, which they share as they shared the weight."""
    tensor, value = place.target.tensor, place.target.value
    owner = value.graph
    if not isinstance(owner, ir.Graph):
        raise ValueError(f"{value.name} belongs to no graph")
    turned = [place.turned if last else True for last in _marks(built.kernels)]
    factors = [
        _register(owner, names(f"{value.name}_factor{count + 1}"), _oriented(kernel, turn), tensor.dtype)
        for count, (kernel, turn) in enumerate(zip(built.kernels, turned, strict=True))
    ]
    for layer in place.layers:
        if place.geometry.kernel:
            _convolve(layer.node, built.option.chain, factors, names)
        else:
            _multiply(layer.node, factors, names)
    if not value.uses() and not value.is_graph_output():
        del owner.initializers[value.name or ""]


def _marks(kernels: Sequence[Array]) -> list[bool]:
    return [place == len(kernels) - 1 for place in range(len(kernels))]


def _oriented(kernel: Array, turned: bool) -> Array:
    """A matrix as its product reads it: (inputs, outputs) for MatMul; a kernel as it is."""
    return kernel.T if turned and kernel.ndim == 2 else kernel


def _register(graph: ir.Graph, name: str, array: Array, dtype: ir.DataType) -> ir.Value:
    stored = np.ascontiguousarray(array).astype(dtype.numpy())
    value = ir.Value(
        name=name,
        type=ir.TensorType(dtype),
        shape=ir.Shape(stored.shape),
        const_value=ir.Tensor(stored, dtype=dtype, name=name),
    )
    graph.register_initializer(value)
    return value


def _multiply(node: ir.Node, factors: Sequence[ir.Value], names: Names) -> None:
    """x W as (x A) B: products first, then the node itself, which keeps bias and factors of its own."""
    given = node.inputs[0]
    for count, factor in enumerate(factors[:-1]):
        given = _before(node, "MatMul", [given, factor], {}, count=count, names=names)
    node.replace_input_with(0, given)
    node.replace_input_with(1, factors[-1])


def _convolve(node: ir.Node, chain: Sequence[StageShape], factors: Sequence[ir.Value], names: Names) -> None:
    own = {name: attribute.value for name, attribute in node.attributes.items()}
    given = node.inputs[0]
    for count, (stage, factor) in enumerate(zip(chain[:-1], factors[:-1], strict=True)):
        given = _before(node, "Conv", [given, factor], _attributes(own, stage), count=count, names=names)
    node.replace_input_with(0, given)
    node.replace_input_with(1, factors[-1])
    for name in ("kernel_shape", "strides", "pads", "dilations", "auto_pad", "group"):
        node.attributes.pop(name, None)
    node.attributes.update(
        {name: _attribute(name, value) for name, value in _attributes(own, chain[-1]).items()}
    )


def _attributes(own: dict[str, Any], stage: StageShape) -> dict[str, Any]:
    """Those of a convolution that strides, pads and dilates along the axes that the stage carries."""
    rank = len(stage.kernel)
    found: dict[str, Any] = {"kernel_shape": list(stage.kernel)}
    if stage.depthwise:
        found["group"] = stage.outputs
    if not stage.carries:
        return found
    for name in ("strides", "dilations"):
        given = own.get(name) or [1] * rank
        found[name] = [int(given[axis]) if axis in stage.carries else 1 for axis in range(rank)]
    automatic = own.get("auto_pad") or "NOTSET"
    if automatic != "NOTSET":
        found["auto_pad"] = automatic
        return found
    pads = own.get("pads") or [0] * 2 * rank
    found["pads"] = [int(pads[side]) if side % rank in stage.carries else 0 for side in range(2 * rank)]
    return found


def _before(
    node: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    attributes: dict[str, Any],
    *,
    count: int,
    names: Names,
) -> ir.Value:
    if not isinstance(node.graph, ir.Graph):
        raise ValueError(f"{node.name} stands in no graph")
    name = names(f"{node.name}_factor{count + 1}")
    made = ir.node(op_type, list(inputs), attributes or None, name=name)
    made.outputs[0].name = name
    made.outputs[0].type = node.outputs[0].type
    node.graph.insert_before(node, made)
    return made.outputs[0]


def _attribute(name: str, value: Any) -> ir.Attr:
    return ir.convenience.convert_attribute(name, value)
