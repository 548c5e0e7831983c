"""Inserts QuantizeLinear and DequantizeLinear where the runtime turns them into integer kernels."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from compression.quantization.affine import Affine, Array, Range, dequantize, from_range
from compression.quantization.recovery.drift import settling
from compression.quantization.recovery.means import Means
from compression.quantization.regions import Region, constant_of
from compression.quantization.storage import Names, as_numpy, integer_attributes
from compression.quantization.target import Target
from compression.quantization.weights import channel_axes, quantize_weight, require_finite

Scales = Mapping[str, NDArray[np.float32]]
NO_SCALES: Scales = MappingProxyType({})
MIN_OPSET = 13
"""The first with an axis on DequantizeLinear."""


@dataclass(frozen=True, kw_only=True)
class Inserted:
    """What was put into the graph: the weights' signal to noise ratio by layer."""

    weight_sqnr_db: dict[str, float]


def insert(
    model: ir.Model,
    region: Region,
    ranges: Mapping[str, Range],
    target: Target,
    *,
    scales: Scales = NO_SCALES,
    means: Means | None = None,
) -> Inserted:
    """Quantize the region in place: weights int8 per channel, biases and activations as the target wants them.

    Args:
        model: with the region's nodes.
        region: what computes in integers.
        ranges: by tensor; every one of the region's has one.
        target: what kernels want.
        scales: of weights by layer, one for each output channel, where they are not to come from the largest weight.
        means: of the layers' inputs by layer; biases then make good what rounding weights does to outputs' means.

    Raises:
        NotApplicable: a weight holds NaN or infinity.
    """
    writer = QdqWriter(
        model, Names(model), integer_biases=target.integer_biases, weights=target.weights, means=means
    )
    parameters = activation_parameters(region, ranges, target)
    given = {name: parameters_of(region, parameters, node) for name, node in region.kernels.items()}
    sqnr = {
        name: writer.weights(name, node, given[name], target.weight_bits, scales.get(name))
        for name, node in region.kernels.items()
    }
    writer.activations(region, parameters)
    return Inserted(weight_sqnr_db=sqnr)


def activation_parameters(
    region: Region, ranges: Mapping[str, Range], target: Target
) -> dict[ir.Value, Affine]:
    """Scale and zero point of each tensor that has its own."""
    return {
        value: from_range(ranges[value.name or ""], target.activations, centred=target.centred)
        for value in region.tensors
    }


def parameters_of(region: Region, parameters: Mapping[ir.Value, Affine], node: ir.Node) -> Affine:
    """The parameters of a kernel's activation input."""
    value = node.inputs[0]
    if value is None:
        raise ValueError(f"{node.name} has no input")
    return parameters[region.made.get(value, value)]


def channel_axis(node: ir.Node, shape: Sequence[int]) -> int:
    """The axis of a kernel's weight that holds its output channels."""
    return (channel_axes(node.op_type, 1, shape, integer_attributes(node)) or (0,))[0]


def _bias(node: ir.Node) -> ir.Value | None:
    return node.inputs[2] if len(node.inputs) > 2 else None


class QdqWriter:
    """Writes QuantizeLinear and DequantizeLinear into a graph."""

    def __init__(
        self,
        model: ir.Model,
        names: Names,
        *,
        integer_biases: bool,
        weights: type[np.integer[Any]] = np.int8,
        means: Means | None = None,
    ) -> None:
        self.graph = model.graph
        self.means = means or {}
        self.names = names
        self.integer_biases = integer_biases
        self.unsigned = weights is np.uint8
        self.constants: dict[tuple[str, bytes], ir.Value] = {}

    def activations(self, region: Region, parameters: Mapping[ir.Value, Affine]) -> None:
        """Quantize every tensor of the region."""
        for value in region.touched:
            source = region.made.get(value, value)
            readers = None if value in region.made else region.read[value]
            self._activation(value, source.name or "tensor", parameters[source], readers)

    def weights(
        self, layer: str, node: ir.Node, given: Affine, bits: int, scale: NDArray[np.float32] | None = None
    ) -> float:
        """Quantize weight and bias of a kernel; returns the weight's signal to noise ratio."""
        value = node.inputs[1]
        tensor = constant_of(value)
        if value is None or tensor is None:
            raise ValueError(f"{layer} has no constant weight")
        weight = as_numpy(tensor)
        require_finite(value.name or layer, weight)
        axis = channel_axis(node, weight.shape)
        made = quantize_weight(weight, (axis,), bits=bits, floor=self._least_scales(node, given), scale=scale)
        settle = settling(node, self.means, self.names)
        if settle is not None:
            settle.follow(weight - dequantize(made.integers, made.parameters))
        used = made.parameters.scale.reshape(-1)
        stored = (made.integers ^ np.int8(-128)).view(np.uint8) if self.unsigned else made.integers
        node.replace_input_with(1, self._dequantized(value.name or layer, stored, used, axis))
        self._integer_bias(layer, node, used, given)
        self._drop(value)
        return made.sqnr_db

    def _least_scales(self, node: ir.Node, given: Affine) -> Array | None:
        """Below them a bias in steps of both scales would not fit 32 bits."""
        tensor = constant_of(_bias(node)) if self.integer_biases else None
        if tensor is None:
            return None
        return np.abs(as_numpy(tensor).astype(np.float64)) / (2.0**30 * float(given.scale))

    def _integer_bias(self, layer: str, node: ir.Node, scale: Array, given: Affine) -> None:
        value = _bias(node) if self.integer_biases else None
        tensor = constant_of(value)
        if value is None or tensor is None:
            return
        bias = as_numpy(tensor).astype(np.float64)
        require_finite(value.name or layer, bias)
        steps = scale.astype(np.float32) * given.scale
        integers = np.clip(np.rint(bias / steps), -(2.0**31), 2.0**31 - 1).astype(np.int32)
        node.replace_input_with(2, self._dequantized(value.name or layer, integers, steps, 0))
        self._drop(value)

    def _drop(self, value: ir.Value) -> None:
        """Remove an initializer that nobody reads any more."""
        if not value.uses() and not value.is_graph_output() and value.name in self.graph.initializers:
            del self.graph.initializers[value.name or ""]

    def scale_of(self, source: str, parameters: Affine) -> ir.Value:
        """What Q and DQ of a tensor with the parameters of `source` take as their scale."""
        return self._constant(f"{source}_scale", parameters.scale)

    def zero_point_of(self, source: str, parameters: Affine) -> ir.Value:
        """What they take as their zero point."""
        return self._constant(f"{source}_zero_point", parameters.zero_point)

    def _activation(
        self, value: ir.Value, source: str, parameters: Affine, readers: list[ir.Node] | None
    ) -> None:
        """Put Q and DQ behind a tensor, for these readers or (None) for everyone, outputs of the graph
        included."""
        name = value.name or "tensor"
        scale = self.scale_of(source, parameters)
        zero = self.zero_point_of(source, parameters)
        users = [use for use in value.uses() if readers is None or use.node in readers]
        quantized = self._node("QuantizeLinear", [value, scale, zero], self.names(f"{name}_quantized"))
        restored = self._node(
            "DequantizeLinear", [quantized.outputs[0], scale, zero], self.names(f"{name}_restored")
        )
        result = restored.outputs[0]
        result.type, result.shape = value.type, value.shape
        for user in users:
            user.node.replace_input_with(user.idx, result)
        self._insert([quantized, restored], value.producer())
        if readers is None and value.is_graph_output():
            self._replace_output(value, result)

    def _insert(self, nodes: list[ir.Node], producer: ir.Node | None) -> None:
        """Right behind the producer, or at the front where there is none."""
        if producer is None:
            self.graph.insert_before(self.graph[0], nodes)
        else:
            self.graph.insert_after(producer, nodes)

    def _replace_output(self, value: ir.Value, result: ir.Value) -> None:
        name = value.name or ""
        for index, output in enumerate(self.graph.outputs):
            if output is value:
                self.graph.outputs[index] = result
        value.name = self.names(f"{name}_float")
        result.name = name

    def _dequantized(self, name: str, integers: Array, scale: Array, axis: int) -> ir.Value:
        stored = self._constant(f"{name}_{integers.dtype.name}", integers)
        factor = self._constant(f"{name}_scale", np.asarray(scale, np.float32))
        middle = 128 if integers.dtype == np.uint8 else 0
        zero = self._constant(f"{name}_zero_point", np.full(scale.shape, middle, integers.dtype))
        node = self._node(
            "DequantizeLinear", [stored, factor, zero], self.names(f"{name}_restored"), axis=axis
        )
        self.graph.insert_before(self.graph[0], [node])
        return node.outputs[0]

    def _constant(self, name: str, array: Array) -> ir.Value:
        """An initializer; equal ones are shared."""
        key = (f"{array.dtype}{array.shape}", hashlib.blake2b(array.tobytes()).digest())
        if key not in self.constants:
            value = ir.Value(
                name=self.names(name),
                type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
                shape=ir.Shape(array.shape),
                const_value=ir.tensor(array),
            )
            self.graph.register_initializer(value)
            self.constants[key] = value
        return self.constants[key]

    def _node(self, op_type: str, inputs: Sequence[ir.Value], output: str, **attributes: int) -> ir.Node:
        node = ir.node(op_type, inputs, dict(attributes) or None, name=output)
        node.outputs[0].name = output
        return node
