"""Puts codes in a weight's place: packed bits up to 8, 16-bit integers beyond, which fold into floats at load."""

import math

import numpy as np
import onnx_ir as ir

from compression.quantization.narrow.building import Builder
from compression.quantization.narrow.folded import codes_as_floats
from compression.quantization.narrow.packing import pack
from compression.quantization.storage import Names, swap
from compression.quantization.uniform.coding import Coded
from compression.quantization.uniform.sizes import stored_bits


def store_coded(value: ir.Value, coded: Coded, names: Names, *, opset: int) -> None:
    """Replace the constant `value` by codes * scale + offset, for every user at once."""
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None:
        raise ValueError(f"{value.name} is no constant")
    build = Builder(beside=value, names=names, opset=opset)
    shape = tuple(tensor.shape.numpy())
    scaled = build.node("Mul", [_floats(build, coded, shape), build.floats("scale", coded.scale)], "scaled")
    build.node("Add", [scaled, build.floats("offset", coded.offset)], "decoded")
    if tensor.dtype != ir.DataType.FLOAT:
        build.node("Cast", [build.nodes[-1].outputs[0]], "back", to=tensor.dtype.value)
    swap(value, build.nodes)


def _floats(build: Builder, coded: Coded, shape: tuple[int, ...]) -> ir.Value:
    bits = stored_bits(coded.bits, build.opset)
    if bits == 16:
        stored = build.constant("codes", ir.tensor(coded.codes.reshape(shape)))
        return build.node("Cast", [stored], "codes_float", to=ir.DataType.FLOAT.value)
    planes = tuple(ir.Tensor(plane) for plane in pack(coded.codes.astype(np.uint8), bits))
    return codes_as_floats(build, "codes", planes, bits, shape or (math.prod(shape),))
