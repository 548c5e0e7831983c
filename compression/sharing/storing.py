"""Puts a codebook and indices in a weight's place: Gather, which every runtime folds into floats at load."""

import numpy as np
import onnx_ir as ir

from compression.quantization.narrow.building import Builder
from compression.quantization.narrow.folded import codes_as_floats
from compression.quantization.narrow.packing import pack
from compression.quantization.storage import Names, swap
from compression.quantization.uniform.sizes import stored_bits
from compression.sharing.codebook import Codebook
from compression.sharing.sizes import Indices


def store_codebook(value: ir.Value, book: Codebook, names: Names, *, opset: int, indices: Indices) -> None:
    """Replace the constant `value`, for every user at once. The codebook is stored in the tensor's own type."""
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None:
        raise ValueError(f"{value.name} is no constant")
    build = Builder(beside=value, names=names, opset=opset)
    shape, (groups, _, depth) = tuple(tensor.shape.numpy()), book.values.shape
    picked = _indices(build, book, indices)
    if groups > 1:
        starts = ir.tensor((book.groups * book.entries).astype(np.int32))
        picked = build.node("Add", [picked, build.constant("groups", starts)], "entries")
    build.node("Gather", [_values(build, book, tensor.dtype), picked], "shared", axis=0)
    if depth > 1:
        build.node("Reshape", [build.nodes[-1].outputs[0], build.integers("shape", shape)], "shaped")
    swap(value, build.nodes)


def _values(build: Builder, book: Codebook, dtype: ir.DataType) -> ir.Value:
    """The codebook as (groups * entries) or (groups * entries, d).

    A zero entry is no part of what is stored as floats, so that training leaves it alone.
    """
    groups, entries, depth = book.values.shape
    learned = book.values[:, 1:] if book.zero else book.values
    stored = build.constant("codebook", _typed(_squeezed(learned), dtype))
    if book.zero:
        zeros = build.constant("zero", _typed(_squeezed(np.zeros((groups, 1, depth))), dtype))
        stored = build.node("Concat", [zeros, stored], "entries_with_zero", axis=0 if groups == 1 else 1)
    if groups == 1:
        return stored
    rows = [groups * entries] if depth == 1 else [groups * entries, depth]
    return build.node("Reshape", [stored, build.integers("rows", rows)], "codebooks")


def _squeezed(values: np.ndarray) -> np.ndarray:
    """Without the axes of one group and of single weights."""
    values = values if values.shape[0] > 1 else values[0]
    return values[..., 0] if values.shape[-1] == 1 else values


def _typed(values: np.ndarray, dtype: ir.DataType) -> ir.TensorProtocol:
    return ir.Tensor(np.ascontiguousarray(values.astype(dtype.numpy())), dtype=dtype)


def _indices(build: Builder, book: Codebook, indices: Indices) -> ir.Value:
    bits = stored_bits(book.bits, build.opset)
    if indices == "bytes" or bits == 8:
        stored = build.constant("indices", ir.tensor(book.indices))
    else:
        planes = tuple(ir.Tensor(plane) for plane in pack(book.indices, bits))
        stored = codes_as_floats(build, "indices", planes, bits, book.indices.shape)
    return build.node("Cast", [stored], "picked", to=ir.DataType.INT32.value)
