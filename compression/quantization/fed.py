"""A quantized model whose activations' scales and zero points are inputs, to try ranges in one session."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from compression.quantization.affine import Affine, Range, from_range
from compression.quantization.probe import Feeds
from compression.quantization.qdq import QdqWriter, activation_parameters, parameters_of
from compression.quantization.recovery.means import Means
from compression.quantization.regions import Region
from compression.quantization.storage import Names
from compression.quantization.target import Target


@dataclass(frozen=True, kw_only=True)
class Fed:
    """Names of the inputs for scale and zero point by tensor."""

    inputs: Mapping[str, tuple[str, str]]
    target: Target

    def parameters(self, bounds: Range) -> Affine:
        return from_range(bounds, self.target.activations, centred=self.target.centred)

    def feeds(self, ranges: Mapping[str, Affine]) -> Feeds:
        """What to add to a sample."""
        pairs = (
            (self.inputs[name], parameters) for name, parameters in ranges.items() if name in self.inputs
        )
        return {
            name: array
            for (scale, zero), parameters in pairs
            for name, array in ((scale, parameters.scale), (zero, parameters.zero_point))
        }


def feed_scales(
    model: ir.Model, region: Region, ranges: Mapping[str, Range], target: Target, means: Means
) -> Fed:
    """Quantize the region in place as `qdq.insert` does, but that biases stay floats and activations' scales are fed.

    Args:
        model: with the region's nodes.
        region: what computes in integers.
        ranges: by tensor; they only bound the scales of weights.
        target: what kernels want.
        means: of the layers' inputs, for the biases to make good what rounding weights does.

    Raises:
        NotApplicable: a weight holds NaN or infinity.
    """
    writer = _Feeding(model, target, means)
    parameters = activation_parameters(region, ranges, target)
    for name, node in region.kernels.items():
        writer.weights(name, node, parameters_of(region, parameters, node), target.weight_bits)
    writer.activations(region, parameters)
    return Fed(inputs=writer.fed, target=target)


class _Feeding(QdqWriter):
    def __init__(self, model: ir.Model, target: Target, means: Means) -> None:
        super().__init__(model, Names(model), integer_biases=False, weights=target.weights, means=means)
        self.fed: dict[str, tuple[str, str]] = {}
        self._inputs: dict[str, tuple[ir.Value, ir.Value]] = {}

    def scale_of(self, source: str, parameters: Affine) -> ir.Value:
        return self._pair(source, parameters)[0]

    def zero_point_of(self, source: str, parameters: Affine) -> ir.Value:
        return self._pair(source, parameters)[1]

    def _pair(self, source: str, parameters: Affine) -> tuple[ir.Value, ir.Value]:
        if source not in self._inputs:
            scale = self._input(f"{source}_scale", parameters.scale.dtype)
            zero = self._input(f"{source}_zero_point", parameters.dtype)
            self._inputs[source] = scale, zero
            self.fed[source] = scale.name or "", zero.name or ""
        return self._inputs[source]

    def _input(self, name: str, dtype: np.dtype) -> ir.Value:
        kind = ir.TensorType(ir.DataType.from_numpy(dtype))
        value = ir.Value(name=self.names(name), type=kind, shape=ir.Shape([]))
        self.graph.inputs.append(value)
        return value
