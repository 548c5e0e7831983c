"""The forms that one stored weight can take: bytes in the file, and values in the runtime."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from compression.quantization.affine import Array, dequantize
from compression.quantization.narrow.narrowed import Narrowed
from compression.quantization.narrow.packing import folding_bytes, unpack
from compression.quantization.narrow.planning import Item
from compression.quantization.rounding.blocks import Grid, decode
from compression.quantization.storage import LAZY_BYTES, Names, as_numpy, release, store, store_narrow
from compression.quantization.weights import CHAIN_BYTES, quantize_weight


@dataclass(frozen=True, kw_only=True)
class Form(ABC):
    """One way to store a weight."""

    tensor: ir.TensorProtocol
    """As it was."""
    size_bytes: int
    """In the file, nodes and names included, about."""
    sqnr_db: float
    """Of the weight itself."""
    words: str

    @abstractmethod
    def values(self) -> Array:
        """What the runtime computes with: the shape and type of the weight as it was."""

    @abstractmethod
    def put(self, value: ir.Value, names: Names) -> None:
        """Store it so in the place of the constant `value`."""


@dataclass(frozen=True, kw_only=True)
class AsItWas(Form):
    """The weight untouched."""

    def values(self) -> Array:
        return as_numpy(self.tensor)

    def put(self, value: ir.Value, names: Names) -> None:
        """Nothing changes."""


@dataclass(frozen=True, kw_only=True)
class Half(Form):
    """float16 behind a Cast that folds at load."""

    def values(self) -> Array:
        weight = as_numpy(self.tensor)
        return weight.astype(np.float16).astype(weight.dtype)

    def put(self, value: ir.Value, names: Names) -> None:
        store_narrow(value, self._stored(), names)

    def _stored(self) -> ir.TensorProtocol:
        """A large one is made again from its source when the model is written."""

        def made() -> ir.TensorProtocol:
            half = as_numpy(self.tensor).astype(np.float16)
            release(self.tensor)
            return ir.tensor(half)

        if self.tensor.size * 2 < LAZY_BYTES:
            return made()
        shape = ir.Shape(self.tensor.shape.numpy())
        return ir.LazyTensor(made, dtype=ir.DataType.FLOAT16, shape=shape)


@dataclass(frozen=True, kw_only=True)
class Bytes(Form):
    """int8 per channel as Cast * scale, which folds at load."""

    axes: tuple[int, ...]

    def values(self) -> Array:
        made = quantize_weight(as_numpy(self.tensor), self.axes)
        release(self.tensor)
        return dequantize(made.integers, made.parameters).astype(self.tensor.dtype.numpy())

    def put(self, value: ir.Value, names: Names) -> None:
        store(value, quantize_weight(as_numpy(self.tensor), self.axes), self.axes, names)
        release(self.tensor)


@dataclass(frozen=True, kw_only=True)
class Packed(Form):
    """Codes of few bits in blocks, which fold at load or which kernels compute with; `placing.place` stores them."""

    item: Item

    def values(self) -> Array:
        return matrix_back(narrowed_of(self.item)).astype(self.tensor.dtype.numpy())

    def put(self, value: ir.Value, names: Names) -> None:
        raise ValueError("codes are stored by `placing.place`, for all weights at once")


def packed(item: Item) -> Packed:
    """The form of a weight that was rounded."""
    made = narrowed_of(item)
    size = item.bytes_after + folding_bytes(made.stored_bits, symmetric=made.scheme.symmetric)
    words = f"{made.scheme.words()}, {made.algorithm}"
    return Packed(tensor=item.tensor, size_bytes=size, sqnr_db=made.errors.sqnr_db, words=words, item=item)


def half_bytes(tensor: ir.TensorProtocol) -> int:
    return tensor.size * 2 + CHAIN_BYTES // 2


def narrowed_of(item: Item) -> Narrowed:
    if item.narrowed is None:
        raise ValueError(f"{item.value.name} was not rounded")
    return item.narrowed


def matrix_back(weight: Narrowed) -> Array:
    """The values of the codes, float32 in the stored shape."""
    rows, width = weight.layout.rows, weight.layout.width
    planes = tuple(plane.numpy() for plane in weight.planes)
    codes = unpack(planes, weight.stored_bits, rows * weight.blocks * weight.size)
    grid = Grid(scheme=weight.scheme, scale=weight.scale, zero_point=weight.zero_point)
    matrix = decode(codes.reshape(rows, -1)[:, :width], grid)
    order = weight.layout.order
    turned = matrix.reshape([weight.layout.shape[axis] for axis in order])
    return np.ascontiguousarray(turned.transpose([order.index(axis) for axis in range(len(order))]))
