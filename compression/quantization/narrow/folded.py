"""The form that every runtime takes: codes as packed bits, turned into floats by operators that fold at load.

A plane of bits lies one byte to a row. Shifting it left, by a different amount for each code in the byte, and back
right leaves the code alone: BitShift is all it takes. Planes are summed, the zero point is subtracted and the
scale multiplied in float32, as everywhere; then the matrix is turned back into the stored shape.
"""

import numpy as np
import onnx_ir as ir

from compression.quantization.narrow.building import Builder
from compression.quantization.narrow.narrowed import Narrowed
from compression.quantization.narrow.packing import PLANES, pack
from compression.quantization.narrow.spill import reshaped
from compression.quantization.storage import Names, swap

_SLICE_OPSET = 10
"""The first at which Slice takes its bounds as inputs."""


def store_folded(value: ir.Value, weight: Narrowed, names: Names, *, opset: int) -> None:
    """Replace the constant `value` by operators on its packed codes, for every user at once."""
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None:
        raise ValueError(f"{value.name} is no constant")
    build = Builder(beside=value, names=names, opset=opset)
    rows, blocks, size = weight.layout.rows, weight.blocks, weight.size
    codes = codes_as_floats(build, "codes", weight.planes, weight.stored_bits, (rows, blocks, size))
    centred = build.node("Sub", [codes, _zero(build, weight)], "centred")
    scale = build.floats("scale", weight.scale[:, :, None])
    matrix = _unblocked(build, build.node("Mul", [centred, scale], "scaled"), weight)
    if weight.input_scales is not None:
        matrix = build.node("Div", [matrix, build.floats("input_scales", weight.input_scales)], "divided")
    _turned(build, matrix, weight, tensor.dtype)
    swap(value, build.nodes)


def _zero(build: Builder, weight: Narrowed) -> ir.Value:
    if weight.scheme.symmetric:
        return build.floats("zero_point", float(weight.scheme.middle))
    shape = (weight.layout.rows, weight.blocks, 1)
    planes = tuple(ir.Tensor(plane) for plane in pack(weight.zero_point, weight.stored_bits))
    return codes_as_floats(build, "zero_points", planes, weight.stored_bits, shape)


def codes_as_floats(
    build: Builder, what: str, planes: tuple[ir.TensorProtocol, ...], bits: int, shape: tuple[int, ...]
) -> ir.Value:
    """The codes of all planes as float32 in a shape."""
    total, shift = None, 0
    for number, (plane, width) in enumerate(zip(planes, PLANES[bits], strict=True)):
        part = _plane(build, f"{what}{number or ''}", plane, width, shape)
        if shift:
            part = build.node("Mul", [part, build.floats("place", 2.0**shift)], f"{what}_placed")
        total = part if total is None else build.node("Add", [total, part], f"{what}_sum")
        shift += width
    if total is None:
        raise ValueError(f"no plane for {bits} bits")
    return total


def _plane(
    build: Builder, what: str, plane: ir.TensorProtocol, width: int, shape: tuple[int, ...]
) -> ir.Value:
    count = int(np.prod(shape))
    if width == 8:
        stored = build.constant(what, reshaped(plane, shape))
        return build.node("Cast", [stored], f"{what}_float", to=ir.DataType.FLOAT.value)
    stored = build.constant(what, reshaped(plane, (plane.size, 1)))
    left = np.arange(8 - width, -1, -width, dtype=np.uint8)[None]
    up = build.node(
        "BitShift", [stored, build.constant("left", ir.tensor(left))], f"{what}_up", direction="LEFT"
    )
    right = build.constant("right", ir.tensor(np.array([[8 - width]], np.uint8)))
    alone = build.node("BitShift", [up, right], f"{what}_alone", direction="RIGHT")
    floats = build.node("Cast", [alone], f"{what}_float", to=ir.DataType.FLOAT.value)
    if plane.size * (8 // width) != count:
        flat = build.node("Reshape", [floats, build.integers("flat", [-1])], f"{what}_flat")
        floats = _cut(build, flat, what, axis=0, length=count)
    return build.node("Reshape", [floats, build.integers("shape", shape)], f"{what}_shaped")


def _unblocked(build: Builder, blocks: ir.Value, weight: Narrowed) -> ir.Value:
    """(rows, blocks, size) to (rows, K)."""
    flat = build.integers("matrix", [weight.layout.rows, weight.blocks * weight.size])
    matrix = build.node("Reshape", [blocks, flat], "unblocked")
    if weight.blocks * weight.size == weight.layout.width:
        return matrix
    return _cut(build, matrix, "unblocked", axis=1, length=weight.layout.width)


def _cut(build: Builder, value: ir.Value, what: str, *, axis: int, length: int) -> ir.Value:
    if build.opset < _SLICE_OPSET:
        return build.node("Slice", [value], f"{what}_cut", starts=[0], ends=[length], axes=[axis])
    bounds = [
        build.integers(name, [number]) for name, number in (("from", 0), ("to", length), ("axis", axis))
    ]
    return build.node("Slice", [value, *bounds], f"{what}_cut")


def _turned(build: Builder, matrix: ir.Value, weight: Narrowed, dtype: ir.DataType) -> None:
    """The matrix in the stored shape and type; the last node gives it."""
    shape, order = weight.layout.shape, weight.layout.order
    result = build.node(
        "Reshape", [matrix, build.integers("rows", [shape[axis] for axis in order])], "rows_first"
    )
    if order != tuple(range(len(shape))):
        build.node("Transpose", [result], "turned", perm=[order.index(axis) for axis in range(len(shape))])
        result = build.nodes[-1].outputs[0]
    if dtype != ir.DataType.FLOAT:
        build.node("Cast", [result], "back", to=dtype.value)
