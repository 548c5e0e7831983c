"""The layers of a model that chains can take the place of, and why others are left."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from compression.graph import Layer
from compression.graph import layers as layers_of
from compression.graph.macs import count_macs
from compression.lowrank.geometry import Geometry
from compression.quantization.storage import as_numpy, blocker, release
from compression.quantization.weights import require_finite
from compression.weight_targets import Target, find_targets

OP_TYPES = frozenset({"Conv", "Gemm", "MatMul"})


@dataclass(frozen=True, kw_only=True)
class Place:
    """A weight with all the nodes that multiply by it, all in the same way."""

    name: str
    """Of the first of its layers."""
    target: Target
    geometry: Geometry
    """Of all nodes together where several share the weight and sizes agree; else of the first."""
    turned: bool
    """Whether a matrix is stored as (inputs, outputs)."""

    @property
    def layers(self) -> tuple[Layer, ...]:
        return self.target.layers

    @property
    def width_bytes(self) -> int:
        return int(self.target.tensor.dtype.bitwidth) // 8

    def read(self) -> NDArray[np.float64]:
        """The weight as (outputs, inputs, *kernel).

        Raises:
            NotApplicable: it holds NaN or infinity.
        """
        array = as_numpy(self.target.tensor)
        require_finite(self.target.value.name or "", array)
        weight = np.ascontiguousarray(array.T if self.turned else array, np.float64)
        release(self.target.tensor)
        return weight


def find_places(model: ir.Model, chosen: Sequence[Layer]) -> tuple[tuple[Place, ...], dict[str, str]]:
    """Where chains may go; and by layer name, why nowhere else. `model` has its shapes inferred."""
    targets, kept = find_targets(chosen, layers_of(model))
    counts = count_macs(model).nodes
    places: list[Place] = []
    for target in targets:
        reason = _unable(target)
        if reason is None:
            places.append(_place(target, counts))
        else:
            kept |= {layer.name: reason for layer in target.layers}
    known = {layer.name for place in places for layer in place.layers}
    for layer in chosen:
        if layer.name not in known:
            kept.setdefault(layer.name, "it has no float weight matrix")
    return tuple(places), kept


def _unable(target: Target) -> str | None:
    reasons = [_misfit(layer.node, target.value) for layer in target.layers]
    reason = blocker(target.value) or next((item for item in reasons if item), None)
    if reason is not None:
        return reason
    if target.value.producer() is not None:
        return "it stands in a function of the model"
    if len({_manner(layer.node) for layer in target.layers}) > 1:
        return "its weight is used in different ways"
    readers = {use.node for use in target.value.uses()}
    if readers != {layer.node for layer in target.layers}:
        return "its weight is read by other nodes too"
    return None


def _misfit(node: ir.Node, value: ir.Value) -> str | None:
    shape = tuple(value.shape.numpy()) if value.shape is not None else ()
    if node.op_type not in OP_TYPES:
        return f"its weight is also that of a {node.op_type}"
    if len(node.inputs) < 2 or node.inputs[1] is not value:
        return "its weight is not stored as its second input"
    if node.op_type == "Conv":
        grouped = node.attributes.get_int("group", 1) > 1
        return "it is a convolution in groups, each of which is small already" if grouped else None
    if len(shape) != 2:
        return "its weight is no single matrix"
    if node.op_type == "Gemm" and node.attributes.get_int("transA", 0) == 1:
        return "its input is transposed"
    return None


def _manner(node: ir.Node) -> tuple[str, bool]:
    return ("Conv" if node.op_type == "Conv" else "product"), _is_turned(node)


def _is_turned(node: ir.Node) -> bool:
    return node.op_type == "MatMul" or (node.op_type == "Gemm" and not node.attributes.get_int("transB", 0))


def _place(target: Target, counts: Mapping[str, int | None]) -> Place:
    first = target.layers[0]
    turned = _is_turned(first.node)
    shape = target.shape[::-1] if turned else target.shape
    known = [counts.get(layer.name) for layer in target.layers]
    geometry = (
        _convolution(first.node, shape, sum(count or 0 for count in known), None not in known)
        if first.node.op_type == "Conv"
        else _product(shape, sum(count or 0 for count in known), None not in known)
    )
    return Place(name=first.name, target=target, geometry=geometry, turned=turned)


def _product(shape: tuple[int, ...], macs: int, known: bool) -> Geometry:
    rows = macs // (shape[0] * shape[1]) if known else 0
    return Geometry(outputs=shape[0], inputs=shape[1], rows=max(rows, 1), known=known and rows > 0)


def _convolution(node: ir.Node, shape: tuple[int, ...], macs: int, known: bool) -> Geometry:
    """Sizes from the shapes; several convolutions of one kernel count as one done several times."""
    outputs, inputs, *kernel = shape
    before, after = _spatial(node.inputs[0]), _spatial(node.outputs[0])
    if before is None or after is None:
        before = tuple(node.attributes.get_ints("strides", [1] * len(kernel)))
        after = (1,) * len(kernel)
    once = prod(after) * prod(shape)
    return Geometry(
        outputs=outputs,
        inputs=inputs,
        kernel=tuple(kernel),
        before=before,
        after=after,
        rows=max(macs // once, 1) if known and once else 1,
        known=known,
    )


def _spatial(value: ir.Value | None) -> tuple[int, ...] | None:
    """Sizes behind the batch and the channels, where all are known."""
    shape = () if value is None or value.shape is None else tuple(value.shape)[2:]
    known = tuple(size for size in shape if isinstance(size, int) and size > 0)
    return known if shape and len(known) == len(shape) else None
