"""The forms that compute on the codes: MatMulNBits and GatherBlockQuantized, and ONNX's blocked DequantizeLinear."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from compression.quantization.narrow.building import Builder
from compression.quantization.narrow.narrowed import Narrowed
from compression.quantization.narrow.packing import pack
from compression.quantization.narrow.spill import reshaped
from compression.quantization.narrow.uses import Use, transposes_of, uses_of
from compression.quantization.storage import Names

MICROSOFT = "com.microsoft"
ACCURACY = 4
"""MatMulNBits' accuracy level at which inputs are rounded to int8 by block, which CPUs multiply fastest."""


def store_in_kernels(
    model: ir.Model, value: ir.Value, weight: Narrowed, names: Names, *, accuracy: int = ACCURACY
) -> None:
    """Let every product and gather that reads the weight compute on its codes; they share one copy of them.

    The nodes keep their names and outputs. `table.form_for` has said that all uses are of these kinds.
    """
    uses, between = uses_of(value) or (), transposes_of(value)
    dtype = value.dtype or ir.DataType.FLOAT
    build = Builder(beside=value, names=names, opset=model.opset_imports.get("", 0))
    shape = (weight.layout.rows, weight.blocks, weight.size * weight.scheme.bits // 8)
    kinds = {use.kind for use in uses}
    flat = (shape[0], shape[1] * shape[2])
    codes = build.constant("codes", reshaped(weight.planes[0], flat if kinds == {"gather"} else shape))
    scale = build.constant("scales", _in_type(weight.scale, dtype))
    zero = None
    if not weight.scheme.symmetric:
        zero = build.constant("zero_points", ir.Tensor(_packed_rows(weight)))
    for use in uses:
        if use.kind == "product":
            _product(use, weight, [codes, scale, zero], names, accuracy)
        else:
            rows = codes if kinds == {"gather"} else _as_rows(use, codes, flat, build)
            _gather(use, weight, [rows, scale, zero], names)
    _drop(value, between)
    model.opset_imports.setdefault(MICROSOFT, 1)


def store_standard(model: ir.Model, value: ir.Value, weight: Narrowed, names: Names) -> None:
    """Replace the constant by DequantizeLinear on blocks of 4 or 8 bit integers, [K, rows] for every product.

    Symmetric codes are stored signed, without zero points; others unsigned.
    """
    build = Builder(beside=value, names=names, opset=model.opset_imports.get("", 0))
    dtype = value.dtype or ir.DataType.FLOAT
    width, rows = weight.layout.width, weight.layout.rows
    codes = _all_codes(weight).reshape(rows, -1)[:, :width].T
    kind, shift = _integer_type(weight)
    given = [
        build.constant("codes", _narrow_tensor(codes.astype(np.int16) - shift, kind)),
        build.constant("scales", _in_type(np.ascontiguousarray(weight.scale.T), dtype)),
    ]
    if not weight.scheme.symmetric:
        zero = weight.zero_point.T.astype(np.int16)
        given.append(build.constant("zero_points", _narrow_tensor(zero, kind)))
    matrix = build.node("DequantizeLinear", given, "dequantized", axis=0, block_size=weight.size)
    owner = value.graph
    if owner is None:
        raise ValueError(f"{value.name} belongs to no graph")
    between, uses = transposes_of(value), uses_of(value) or ()
    owner.insert_before(owner[0], build.nodes)
    for use in uses:
        node = use.node
        if node.op_type == "Gemm" and "transB" in node.attributes:
            del node.attributes["transB"]
        node.replace_input_with(1, matrix)
    _drop(value, between)


def _product(
    use: Use, weight: Narrowed, given: Sequence[ir.Value | None], names: Names, accuracy: int
) -> None:
    node = use.node
    bias = node.inputs[2] if node.op_type == "Gemm" and len(node.inputs) > 2 else None
    made = ir.node(
        "MatMulNBits",
        [node.inputs[0], *_without_tail(given)],
        {
            "K": weight.layout.width,
            "N": weight.layout.rows,
            "bits": weight.scheme.bits,
            "block_size": weight.size,
            "accuracy_level": accuracy,
        },
        domain=MICROSOFT,
        name=node.name,
    )
    _put(node, made, bias, names)


def _gather(use: Use, weight: Narrowed, given: Sequence[ir.Value | None], names: Names) -> None:
    node = use.node
    rows, scale, zero = given
    made = ir.node(
        "GatherBlockQuantized",
        _without_tail([rows, node.inputs[1], scale, zero]),
        {"gather_axis": 0, "quantize_axis": 1, "block_size": weight.size, "bits": weight.scheme.bits},
        domain=MICROSOFT,
        name=node.name,
    )
    _put(node, made, None, names)


def _put(old: ir.Node, new: ir.Node, bias: ir.Value | None, names: Names) -> None:
    """The new node in the old one's place, under its output's name; a bias is added after it."""
    graph, result = old.graph, old.outputs[0]
    if graph is None:
        raise ValueError(f"{old.name} stands in no graph")
    nodes = [new]
    last = new.outputs[0]
    if bias is not None:
        last.name = names(f"{result.name}_product")
        last.type, last.shape = result.type, result.shape
        nodes.append(ir.node("Add", [last, bias], name=names(f"{old.name}_bias")))
        last = nodes[-1].outputs[0]
    last.type, last.shape = result.type, result.shape
    graph.insert_after(old, nodes)
    name = result.name
    ir.convenience.replace_all_uses_with(result, last, replace_graph_outputs=True)
    result.name, last.name = None, name
    graph.remove(old, safe=True)


def _as_rows(use: Use, codes: ir.Value, flat: tuple[int, ...], build: Builder) -> ir.Value:
    """A gather's view of codes that a product shares: folded into a constant as the runtime loads."""
    rows = build.node("Reshape", [codes, build.integers("rows", flat)], "as_rows")
    owner = build.beside.graph
    if owner is None:
        raise ValueError(f"{build.beside.name} belongs to no graph")
    owner.insert_before(owner[0], build.nodes)
    build.nodes.clear()
    return rows


def _drop(value: ir.Value, between: Sequence[ir.Node]) -> None:
    """Takes the weight out, and the nodes that only carried it, last first."""
    for node in reversed(between):
        if node.graph is not None and not node.outputs[0].uses():
            node.graph.remove(node, safe=True)
    if value.graph is not None and value.name in value.graph.initializers and not value.uses():
        del value.graph.initializers[value.name or ""]


def _packed_rows(weight: Narrowed) -> np.ndarray:
    """Zero points as MatMulNBits reads them: those of a row packed, each row in bytes of its own."""
    bits = weight.scheme.bits
    spare = -weight.blocks % (8 // bits)
    padded = np.pad(weight.zero_point, ((0, 0), (0, spare)))
    return pack(padded, bits)[0].reshape(len(padded), -1)


def _all_codes(weight: Narrowed) -> np.ndarray:
    from compression.quantization.narrow.packing import unpack

    count = weight.layout.rows * weight.blocks * weight.size
    return unpack(tuple(plane.numpy() for plane in weight.planes), weight.stored_bits, count)


def _integer_type(weight: Narrowed) -> tuple[ir.DataType, int]:
    """The stored type, and what is taken off the codes for it."""
    wide = weight.scheme.bits == 8
    if weight.scheme.symmetric:
        return (ir.DataType.INT8 if wide else ir.DataType.INT4), weight.scheme.middle
    return (ir.DataType.UINT8 if wide else ir.DataType.UINT4), 0


def _narrow_tensor(values: np.ndarray, kind: ir.DataType) -> ir.TensorProtocol:
    return ir.Tensor(np.ascontiguousarray(values).astype(kind.numpy()), dtype=kind)


def _in_type(values: np.ndarray, dtype: ir.DataType) -> ir.TensorProtocol:
    return ir.tensor(np.ascontiguousarray(values).astype(dtype.numpy()))


def _without_tail(values: Sequence[ir.Value | None]) -> list[ir.Value | None]:
    """Inputs without the missing ones at the end."""
    kept = list(values)
    while kept and kept[-1] is None:
        kept.pop()
    return kept
