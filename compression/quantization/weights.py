"""Which axes of a weight carry channels, and a weight quantized along them with the error it makes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compression.errors import NotApplicable
from compression.quantization.affine import Affine, Array, dequantize, energy, quantize, ratio_db, symmetric

CHAIN_BYTES = 160
"""What the nodes and names of one stored weight cost in the file, about; it must save more than that."""
_SLICE_ELEMENTS = 1 << 22
_RECURRENT = ("LSTM", "GRU", "RNN")


@dataclass(frozen=True, kw_only=True)
class QuantizedWeight:
    """A weight as integers with the parameters that give it back, and how near it comes to the original."""

    integers: Array
    parameters: Affine
    sqnr_db: float


def channel_axes(
    op_type: str, index: int, shape: Sequence[int], attributes: dict[str, Any]
) -> tuple[int, ...] | None:
    """The axes that get a scale per index, for input `index` of an operator; None where no rule is known.

    One output channel shares one scale: rows of Conv, columns of MatMul, gate rows of an LSTM per direction,
    rows of an embedding.
    """
    rank = len(shape)
    if rank < 2:
        return ()
    transposed = bool(attributes.get("transA" if index == 0 else "transB", 0))
    inner = rank - 2 if index == 1 else rank - 1
    rules: dict[str, tuple[int, ...]] = {
        "Conv": (0,),
        "ConvTranspose": (1,) if attributes.get("group", 1) == 1 else (0,),
        "Gemm": (0,) if transposed != (index == 0) else (1,),
        "MatMul": tuple(axis for axis in range(rank) if axis != inner),
        "Gather": (int(attributes.get("axis", 0)) % rank,),
        **dict.fromkeys(_RECURRENT, tuple(range(rank - 1))),
    }
    return rules.get(op_type)


def guess_axes(weight: Array) -> tuple[int, ...]:
    """The single axis along which the weight quantizes best, for operators without a rule."""
    choices = [(axis,) for axis in range(weight.ndim) if weight.shape[axis] * 8 <= weight.size]
    if len(choices) < 2:
        return choices[0] if choices else ()
    sample = weight[_slices(weight.shape)[0]]
    return max(choices, key=lambda axes: quantize_weight(sample, axes).sqnr_db)


def quantize_weight(
    weight: Array,
    axes: tuple[int, ...],
    *,
    bits: int = 8,
    floor: Array | None = None,
    scale: Array | None = None,
) -> QuantizedWeight:
    """Symmetric integers along `axes`, worked off in slices so that scratch memory stays small.

    `floor` is the least scale of each channel, where there is one axis; `scale` stands in place of those that the
    largest weights give, and weights beyond it saturate at `bits`.
    """
    spread = [-1 if axis in axes else 1 for axis in range(weight.ndim)]
    least = 0.0 if floor is None else floor.reshape(spread)
    parameters = symmetric(weight, axes, bits=bits, floor=least)
    clipped = weight
    if scale is not None:
        given = np.maximum(scale.reshape(spread), least).astype(np.float32)
        parameters = Affine(scale=given, zero_point=np.zeros(given.shape, parameters.dtype))
        limit = given * np.float32(2 ** (bits - 1) - 1)
        clipped = np.clip(weight, -limit, limit)
    integers = np.empty(weight.shape, parameters.dtype)
    signal = noise = 0.0
    for part in _slices(weight.shape):
        scale = (
            parameters.scale[part]
            if parameters.scale.ndim and parameters.scale.shape[0] > 1
            else parameters.scale
        )
        local = Affine(scale=scale, zero_point=np.zeros((), parameters.dtype))
        integers[part] = quantize(clipped[part], local)
        added = energy(weight[part], dequantize(integers[part], local))
        signal, noise = signal + added[0], noise + added[1]
    return QuantizedWeight(integers=integers, parameters=parameters, sqnr_db=ratio_db(signal, noise))


def is_finite(weight: Array) -> bool:
    """Whether no element is NaN or infinite, looked at by slices."""
    return all(bool(np.isfinite(weight[part]).all()) for part in _slices(weight.shape))


def require_finite(name: str, weight: Array) -> None:
    """Refuses a weight that holds NaN or infinity.

    Raises:
        NotApplicable: naming the tensor.
    """
    if not is_finite(weight):
        raise NotApplicable(
            f"the weight {name!r} holds NaN or infinity, which no integer can stand for",
            where=name,
            hint="leave its layer out with the selector's `exclude`, or repair the model",
        )


def _slices(shape: Sequence[int]) -> list[tuple[slice, ...]]:
    """Pieces along the first axis of about `_SLICE_ELEMENTS` each; one piece for scalars."""
    if not shape or not shape[0]:
        return [()]
    row = max(int(np.prod(shape[1:])), 1)
    rows = max(_SLICE_ELEMENTS // row, 1)
    return [(slice(start, start + rows),) for start in range(0, shape[0], rows)]
