"""What quantization would make of a layer, told from its summary alone: no model is opened."""

import math
from collections.abc import Sequence

from compression.errors import NotApplicable
from compression.quantization.weights import CHAIN_BYTES, channel_axes
from compression.summary import LayerSummary, WeightSummary

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


def float16_layer(layer: LayerSummary) -> LayerSummary:
    """The layer with its matrices stored as float16, where that is smaller."""
    weights = tuple(
        as_type(weight, "float16", weight.elements * 2) if _halved(layer, position) else weight
        for position, weight in enumerate(layer.weights)
    )
    return layer.model_copy(update={"weights": weights})


def _halved(layer: LayerSummary, position: int) -> bool:
    weight = layer.weights[position]
    return (
        is_matrix(layer, position)
        and weight.dtype in {"float32", "float64"}
        and weight.elements * 2 + CHAIN_BYTES // 2 < weight.size_bytes
    )
