"""A region that rounds as its integers would while everything stays a float, so that it can be trained.

Weights and activations go through QuantizeLinear and DequantizeLinear with scales s = exp(10 l). What is learned is l:
a step of the optimizer then moves every scale by a share of itself, however small it is, and by about the share that
it moves a weight of 0.1 by.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from compression.quantization.affine import Affine, Array, Range, symmetric
from compression.quantization.qdq import QdqWriter, activation_parameters, channel_axis
from compression.quantization.regions import Region, constant_of
from compression.quantization.storage import Names, as_numpy
from compression.quantization.target import Target
from compression.quantization.weights import require_finite

PACE = 10.0
"""How many times its logarithm a scale moves by."""


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """Which initializers hold logarithms of scales over PACE, float32."""

    activations: dict[str, str] = field(default_factory=dict)
    """By tensor, 0-d."""
    weights: dict[str, str] = field(default_factory=dict)
    """By layer, one for each output channel."""
    factors: dict[str, float] = field(default_factory=dict)
    """1 / sqrt(N Qp) by initializer: N numbers share a scale, Qp is the largest integer (Esser et al. 2020,
    arXiv:1902.08153, section 2.2)."""

    @property
    def logarithms(self) -> tuple[str, ...]:
        return (*self.activations.values(), *self.weights.values())


def simulate(model: ir.Model, region: Region, ranges: Mapping[str, Range], target: Target) -> Simulated:
    """Rewrite the region in place. Weights and biases stay initializers with their names and values.

    Raises:
        NotApplicable: a weight holds NaN or infinity.
    """
    writer = _Simulation(model)
    for name, node in region.kernels.items():
        writer.kernel(name, node, target.weight_bits)
    writer.activations(region, activation_parameters(region, ranges, target))
    return writer.made


class _Simulation(QdqWriter):
    def __init__(self, model: ir.Model) -> None:
        super().__init__(model, Names(model), integer_biases=False)
        self.made = Simulated()
        self._scales: dict[str, ir.Value] = {}
        self._first = self.graph[0]

    def scale_of(self, source: str, parameters: Affine) -> ir.Value:
        if source not in self._scales:
            value = next((v for v in self._values() if v.name == source), None)
            sizes = [] if value is None or value.shape is None else list(value.shape)[1:]
            count = math.prod(size for size in sizes if isinstance(size, int))
            log, scale = self._logarithm(source, parameters.scale, count, np.iinfo(parameters.dtype).max)
            self.made.activations[source] = log
            self._scales[source] = scale
        return self._scales[source]

    def kernel(self, layer: str, node: ir.Node, bits: int) -> None:
        """max(min(W, s q), -s q) through Q and DQ, with one s for each output channel."""
        value = node.inputs[1]
        tensor = constant_of(value)
        if value is None or tensor is None:
            raise ValueError(f"{layer} has no constant weight")
        weight, name = as_numpy(tensor), value.name or layer
        require_finite(name, weight)
        axis, levels = channel_axis(node, weight.shape), 2 ** (bits - 1) - 1
        given = symmetric(weight, (axis,), bits=bits).scale.reshape(-1)
        log, scale = self._logarithm(name, given, weight.size // max(given.size, 1), levels)
        self.made.weights[layer] = log
        bounded = self._bounded(value, scale, axis, levels)
        parameters = [scale, self._constant(f"{name}_zero_point", np.zeros(given.shape, np.int8))]
        rounded = self._put("QuantizeLinear", [bounded, *parameters], f"{name}_quantized", axis=axis)
        node.replace_input_with(
            1, self._put("DequantizeLinear", [rounded, *parameters], f"{name}_restored", axis=axis)
        )

    def _bounded(self, value: ir.Value, scale: ir.Value, axis: int, levels: int) -> ir.Value:
        name, rank = value.name or "weight", len(value.shape or ())
        shape = np.array([-1 if place == axis else 1 for place in range(rank)], np.int64)
        largest = self._constant("largest", np.array(levels, np.float32))
        spread = self._put("Reshape", [scale, self._constant("shape", shape)], f"{name}_spread")
        high = self._put("Mul", [spread, largest], f"{name}_high")
        low = self._put("Neg", [high], f"{name}_low")
        below = self._put("Min", [value, high], f"{name}_below")
        return self._put("Max", [below, low], f"{name}_bounded")

    def _logarithm(
        self, name: str, scale: NDArray[np.float32], count: int, levels: int
    ) -> tuple[str, ir.Value]:
        """The initializer's name, and the scale that is made from it."""
        log = self._own(f"{name}_log_scale", (np.log(scale) / PACE).astype(np.float32))
        self.made.factors[log.name or ""] = 1 / math.sqrt(max(count, 1) * max(levels, 1))
        pace = self._constant("pace", np.array(PACE, np.float32))
        paced = self._put("Mul", [log, pace], f"{name}_paced_scale")
        return log.name or "", self._put("Exp", [paced], f"{name}_scale")

    def _own(self, name: str, array: Array) -> ir.Value:
        """An initializer that is shared with nothing."""
        value = ir.Value(
            name=self.names(name),
            type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
            shape=ir.Shape(array.shape),
            const_value=ir.tensor(array),
        )
        self.graph.register_initializer(value)
        return value

    def _put(self, op_type: str, inputs: list[ir.Value], name: str, **attributes: int) -> ir.Value:
        """A node that is computed from initializers alone, before everything that was there."""
        node = self._node(op_type, inputs, self.names(name), **attributes)
        self._insert([node], None)
        return node.outputs[0]

    def _insert(self, nodes: list[ir.Node], producer: ir.Node | None) -> None:
        if producer is None:
            self.graph.insert_before(self._first, nodes)
        else:
            super()._insert(nodes, producer)

    def _values(self) -> list[ir.Value]:
        return [*self.graph.inputs, *(output for node in self.graph for output in node.outputs)]
