"""Gives a student random weights instead of the teacher's, by what each weight is to its layer."""

from collections.abc import Collection, Iterator

import numpy as np
import onnx_ir as ir

from compression.graph import Layer, layers
from compression.graph.operators import FLOATS
from compression.weight_targets import RECURRENT, reduction_axis

NORMALIZATIONS: dict[str, tuple[float | None, ...]] = {
    "BatchNormalization": (None, 1.0, 0.0, 0.0, 1.0),
    "InstanceNormalization": (None, 1.0, 0.0),
    "LayerNormalization": (None, 1.0, 0.0),
    "GroupNormalization": (None, 1.0, 0.0),
    "RMSNormalization": (None, 1.0),
    "SimplifiedLayerNormalization": (None, 1.0),
    "SkipLayerNormalization": (None, None, 1.0, 0.0, 0.0),
    "SkipSimplifiedLayerNormalization": (None, None, 1.0, 0.0),
}
"""What a normalization begins with, by the place of its input: scale 1, shift 0, mean 0, variance 1."""
KERNELS = frozenset(
    {"Conv", "ConvTranspose", "Gemm", "MatMul", "FusedConv", "FusedGemm", "FusedMatMul", "Einsum"}
)
EMBEDDING_SPREAD = 0.02


def reinitialise(model: ir.Model, seed: int, *, untouched: Collection[str] = ()) -> tuple[str, ...]:
    """New weights in place; gives the names of the layers that got some.

    Kernels and matrices are drawn from N(0, 2 / fan_in) (He et al. 2015, arXiv:1502.01852, equation 10),
    recurrent weights from U(-1 / sqrt(hidden), 1 / sqrt(hidden)), embeddings from N(0, 0.02^2); biases become
    0 and normalizations the identity. Weights of any other kind stay, as do tensors shared with `untouched`.

    Args:
        model: the student.
        seed: the same seed gives the same weights.
        untouched: names of layers that must not change.
    """
    rng = np.random.default_rng(seed)
    everything = layers(model)
    kept = {id(value) for layer in everything if layer.name in untouched for value in layer.weights}
    changed = []
    for layer in everything:
        fresh = [] if layer.name in untouched else list(_initial(layer, rng))
        for value, array in fresh:
            if id(value) not in kept:
                _put(value, array)
        if fresh:
            changed.append(layer.name)
    return tuple(changed)


def _initial(layer: Layer, rng: np.random.Generator) -> Iterator[tuple[ir.Value, np.ndarray]]:
    for value in layer.weights:
        tensor = value.const_value
        if tensor is None or tensor.dtype not in FLOATS or value.producer() is not None:
            continue
        array = _drawn(layer, value, tuple(int(size) for size in tensor.shape.numpy()), rng)
        if array is not None:
            yield value, array


def _drawn(
    layer: Layer, value: ir.Value, shape: tuple[int, ...], rng: np.random.Generator
) -> np.ndarray | None:
    """float64; None where nobody knows what such a weight should begin with."""
    kind = layer.node.op_type
    if kind in NORMALIZATIONS:
        constant = _constant(layer.node, value, NORMALIZATIONS[kind])
        return None if constant is None else np.full(shape, constant)
    if len(shape) < 2:
        return np.zeros(shape) if kind in KERNELS or kind == "Add" else None
    if kind in RECURRENT:
        return np.asarray(rng.uniform(-1, 1, shape) / np.sqrt(_hidden(layer.node, shape)))
    if kind == "Gather":
        return rng.normal(size=shape) * EMBEDDING_SPREAD
    if kind in KERNELS:
        return np.asarray(rng.normal(size=shape) * np.sqrt(2 / _fan_in(layer, value, shape)))
    return None


def _constant(node: ir.Node, value: ir.Value, constants: tuple[float | None, ...]) -> float | None:
    place = next((index for index, given in enumerate(node.inputs) if given is value), None)
    return constants[place] if place is not None and place < len(constants) else None


def _hidden(node: ir.Node, shape: tuple[int, ...]) -> int:
    attribute = node.attributes.get("hidden_size")
    return attribute.as_int() if attribute is not None else shape[-1]


def _fan_in(layer: Layer, value: ir.Value, shape: tuple[int, ...]) -> float:
    """Inputs of one output: along the axis summed over, times a kernel's positions."""
    axis = reduction_axis(layer, value)
    if axis is None:
        return float(np.prod(shape)) / max(shape)
    positions = np.prod(shape[2:]) if layer.node.op_type in ("Conv", "FusedConv", "ConvTranspose") else 1
    groups = layer.node.attributes.get("group")
    shared = groups.as_int() if groups is not None and layer.node.op_type == "ConvTranspose" else 1
    return float(shape[axis] * positions) / shared


def _put(value: ir.Value, array: np.ndarray) -> None:
    old = value.const_value
    assert old is not None
    value.const_value = ir.Tensor(array.astype(old.dtype.numpy()), dtype=old.dtype, name=old.name)
