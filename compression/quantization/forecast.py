"""What quantization would make of a layer, told from its summary alone: no model is opened."""

import math
from collections.abc import Sequence
from typing import Literal

from compression.errors import NotApplicable
from compression.quantization.weights import CHAIN_BYTES, channel_axes
from compression.summary import LayerSummary, ModelSummary, WeightSummary

_RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
_ONE_MATRIX = frozenset({"Conv", "ConvTranspose", "Gemm"})


def is_matrix(layer: LayerSummary, position: int) -> bool:
    """Whether the weight at this position is a float matrix, not a bias."""
    weight = layer.weights[position]
    matrices = 1 if layer.op_type in _ONE_MATRIX else 2 if layer.op_type in _RECURRENT else len(layer.weights)
    return weight.is_float and position < matrices and len(weight.shape) >= 2


def refuse_small(method: str, floats: Sequence[LayerSummary], able: Sequence[LayerSummary]) -> None:
    """Tells a model without float weights, which is refused anyway, from one whose floats are all too small.

    Raises:
        NotApplicable: there are layers with float weights, but no other type would make any of them smaller.
    """
    if floats and not able:
        raise NotApplicable(
            f"{method} would make nothing smaller: the {len(floats)} layers with float weights hold only "
            "biases or tensors too small to gain from another type",
            where=floats[0].name,
        )


def int8_bytes(op_type: str, shape: Sequence[int]) -> int:
    """Bytes of a weight stored as int8 with float32 scales along its channels."""
    axes = channel_axes(op_type, 1, shape, {})
    return math.prod(shape) + 4 * math.prod(shape[axis] for axis in axes or ()) + CHAIN_BYTES


def int8_layer(layer: LayerSummary) -> LayerSummary:
    """The layer with its matrices stored as int8, where that is smaller."""
    weights = tuple(
        as_type(weight, "int8", int8_bytes(layer.op_type, weight.shape))
        if _saves(layer, position)
        else weight
        for position, weight in enumerate(layer.weights)
    )
    return layer.model_copy(update={"weights": weights})


def as_type(weight: WeightSummary, dtype: str, size_bytes: int) -> WeightSummary:
    return weight.model_copy(update={"dtype": dtype, "size_bytes": size_bytes})


def _saves(layer: LayerSummary, position: int) -> bool:
    weight = layer.weights[position]
    return is_matrix(layer, position) and int8_bytes(layer.op_type, weight.shape) < weight.size_bytes


_FLOAT_BYTES = {"float16": 2, "bfloat16": 2, "float8_e4m3": 1, "float8_e5m2": 1}
_FLOAT_DTYPES = {"float8_e4m3": "float8_e4m3fn"}


def float_layer(layer: LayerSummary, form: str = "float16") -> LayerSummary:
    """The layer with its matrices stored in a narrower float type, where that is smaller."""
    dtype = _FLOAT_DTYPES.get(form, form)
    weights = []
    for position, weight in enumerate(layer.weights):
        size = _float_bytes(layer, weight, form)
        able = is_matrix(layer, position) and size + CHAIN_BYTES // 2 < weight.size_bytes
        weights.append(as_type(weight, dtype, size) if able else weight)
    return layer.model_copy(update={"weights": tuple(weights)})


def _float_bytes(layer: LayerSummary, weight: WeightSummary, form: str) -> int:
    """Bytes of a weight in the type; float8 has a float32 scale for each channel."""
    width = _FLOAT_BYTES[form]
    if width > 1:
        return weight.elements * width
    axes = channel_axes(layer.op_type, 1, weight.shape, {}) or ()
    return weight.elements + 4 * math.prod(weight.shape[axis] for axis in axes) + CHAIN_BYTES // 2


_CHECKED_BYTES = 1_500_000_000
_FIXED_BYTES = 600_000_000


def narrow_layer(layer: LayerSummary, bits: int, block: int | None, *, symmetric: bool) -> LayerSummary:
    """The layer with its matrices at so many bits in blocks, where that is smaller."""
    weights = []
    for position, weight in enumerate(layer.weights):
        size = narrow_bytes(layer.op_type, weight.shape, bits, block, symmetric=symmetric)
        smaller = is_matrix(layer, position) and size < weight.size_bytes
        weights.append(as_type(weight, "uint8", size) if smaller else weight)
    return layer.model_copy(update={"weights": tuple(weights)})


def coded_layer(layer: LayerSummary, bits: int) -> LayerSummary:
    """The layer with its matrices as codes of so many bits on one grid for each, where that is smaller."""
    from compression.quantization.uniform.sizes import coded_bytes

    weights = []
    for position, weight in enumerate(layer.weights):
        size = coded_bytes(weight.elements, bits)
        smaller = is_matrix(layer, position) and size < weight.size_bytes
        dtype = "uint16" if bits > 8 else "uint8"
        weights.append(as_type(weight, dtype, size) if smaller else weight)
    return layer.model_copy(update={"weights": tuple(weights)})


def shared_layer(
    layer: LayerSummary, entries: int, indices: Literal["bits", "bytes"], vector: int, group: int | None
) -> LayerSummary:
    """The layer with its matrices as indices into codebooks, where that is smaller."""
    from compression.sharing.sizes import shared_bytes

    weights = []
    for position, weight in enumerate(layer.weights):
        if not is_matrix(layer, position):
            weights.append(weight)
            continue
        axes = channel_axes(layer.op_type, 1, weight.shape, {}) or (0,)
        groups = 1 if group is None else -(-weight.shape[axes[0]] // group)
        width = weight.size_bytes // max(weight.elements, 1)
        size = shared_bytes(weight.elements, entries, indices, vector=vector, groups=groups, width=width)
        weights.append(as_type(weight, "uint8", size) if size < weight.size_bytes else weight)
    return layer.model_copy(update={"weights": tuple(weights)})


def narrow_bytes(op_type: str, shape: Sequence[int], bits: int, block: int | None, *, symmetric: bool) -> int:
    """Bytes of a weight at so many bits: codes of whole blocks, float32 scales, zero points, and nodes."""
    from compression.quantization.narrow.packing import folding_bytes

    axes = channel_axes(op_type, 1, shape, {})
    rows = math.prod(shape[axis] for axis in (axes if axes is not None else (0,)))
    width = math.prod(shape) // max(rows, 1)
    size = width if block is None else min(block, width)
    blocks = rows * -(-width // max(size, 1))
    zero_points = 0 if symmetric else -(-blocks * bits // 8)
    return -(-blocks * size * bits // 8) + 4 * blocks + zero_points + folding_bytes(bits, symmetric=symmetric)


def streaming_bytes(model: ModelSummary, *, fitted: bool) -> int:
    """Peak memory of a step that holds one weight at a time.

    A model up to 1.5 GB is run before and after to compare its outputs; one whose inputs are looked at, whatever
    its size. onnxruntime holds it about twice.
    """
    largest = max((weight.size_bytes for layer in model.layers for weight in layer.weights), default=0)
    runs = fitted or model.weight_bytes <= _CHECKED_BYTES
    return _FIXED_BYTES + 3 * largest + (3 * model.size_bytes if runs else 0)
