"""Puts a dictionary and sparse codes in a weight's place: Gather and MatMul, which runtimes fold at load."""

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from compression.graph.limits import SMALL_TENSOR_BYTES
from compression.quantization.narrow.building import Builder
from compression.quantization.narrow.folded import codes_as_floats
from compression.quantization.narrow.packing import pack
from compression.quantization.storage import Names, swap
from compression.sparse_coding.fitting import Fitted
from compression.sparse_coding.layout import Layout
from compression.sparse_coding.pursuit import Codes, Doubles
from compression.sparse_coding.sizes import COUNT_OPSET, Storage, coded_bytes, index_bits, plane_bits


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A weight as it will lie in the file."""

    atoms: NDArray[np.uint8]
    """(n, slots); where lengths differ (entries,), signal after signal."""
    values: NDArray[np.int8]
    """In the same shape."""
    counts: NDArray[np.uint8] | None
    """(n,), entries of each signal; None where all have as many slots."""
    slots: int
    dictionary: NDArray[np.float16]
    """(K, block), times `factor`."""
    factor: float
    value_bits: int
    layout: Layout
    storage: Storage
    size_bytes: int
    """Of all of it with its nodes, about."""

    @property
    def entries(self) -> int:
        return int(self.atoms.size)


def as_stored(dictionary: Doubles) -> Doubles:
    """What is left of a dictionary in the file."""
    halves, factor = _halves(dictionary)
    return halves.astype(np.float64) * factor


def prepared(fitted: Fitted, *, value_bits: int, storage: Storage, opset: int) -> Stored:
    """The smaller of two forms: as many slots for each signal, or codes end to end beside their lengths."""
    codes, counts = _ordered(fitted.codes)
    slots = max(int(counts.max(initial=0)), 1)
    signals, (atoms, block) = len(counts), fitted.dictionary.shape
    even = coded_bytes(signals, signals * slots, atoms, block, value_bits, storage=storage, opset=opset)
    entries = max(int(counts.sum()), 1)
    uneven = coded_bytes(signals, entries, atoms, block, value_bits, storage=storage, opset=opset, most=slots)
    apart = uneven < even and opset >= COUNT_OPSET and counts.any()
    used = codes.gains != 0 if apart else np.s_[:, :slots]
    halves, factor = _halves(fitted.dictionary)
    return Stored(
        atoms=codes.atoms[used].astype(np.uint8),
        values=codes.gains[used].astype(np.int8),
        counts=counts.astype(np.uint8) if apart else None,
        slots=slots,
        dictionary=halves,
        factor=factor,
        value_bits=value_bits,
        layout=fitted.layout,
        storage=storage,
        size_bytes=uneven if apart else even,
    )


def store(value: ir.Value, stored: Stored, names: Names, *, opset: int) -> int:
    """Replace the constant `value`, for every user at once; returns the bytes that what takes its place has."""
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None:
        raise ValueError(f"{value.name} is no constant")
    build = Builder(beside=value, names=names, opset=opset)
    layout = stored.layout
    size = (layout.signals, stored.slots)
    places, used = (None, None) if stored.counts is None else _places(build, stored)
    picked = _indices(build, stored, places)
    gains = _gains(build, stored, places, used)
    chosen = build.node("Gather", [_dictionary(build, stored), picked], "chosen", axis=0)
    row = build.node("Reshape", [gains, build.integers("row", [size[0], 1, size[1]])], "gains")
    build.node("MatMul", [row, chosen], "blocks")
    _shaped(build, layout)
    if tensor.dtype != ir.DataType.FLOAT:
        build.node("Cast", [build.nodes[-1].outputs[0]], "back", to=tensor.dtype.value)
    size_bytes = _bytes(build)
    swap(value, build.nodes)
    return size_bytes


def _ordered(codes: Codes) -> tuple[Codes, NDArray[np.int64]]:
    """Entries before slots that are free, which point at the first atom; and how many each signal has."""
    order = np.argsort(codes.gains == 0, axis=1, kind="stable")
    gains = np.take_along_axis(codes.gains, order, axis=1)
    atoms = np.where(gains != 0, np.take_along_axis(codes.atoms, order, axis=1), 0)
    return replace(codes, atoms=atoms, gains=gains), np.count_nonzero(gains, axis=1)


def _halves(dictionary: Doubles) -> tuple[NDArray[np.float16], float]:
    """As float16 of at most 2, and the power of two that gives it back."""
    largest = float(np.abs(dictionary).max(initial=0.0))
    factor = 2.0 ** np.floor(np.log2(largest)) if largest > 0 else 1.0
    return (dictionary / factor).astype(np.float16), float(factor)


def _places(build: Builder, stored: Stored) -> tuple[ir.Value, ir.Value]:
    """Where each slot's entry lies, (n, slots), 0 for free ones; and which are used."""
    if stored.counts is None:
        raise ValueError("all codes are as long")
    most = index_bits(stored.slots + 1)
    floats = _packed(build, "counts", stored.counts[:, None], most, storage=stored.storage)
    counts = build.node("Cast", [floats], "lengths", to=ir.DataType.INT32.value)
    ends = build.node("CumSum", [counts, build.constant("axis", ir.tensor(np.int32(0)))], "ends")
    begins = build.node("Sub", [ends, counts], "begins")
    slots = build.constant("slots", ir.tensor(np.arange(stored.slots, dtype=np.int32)[None]))
    used = build.node("Less", [slots, counts], "used")
    mask = build.node("Cast", [used], "mask", to=ir.DataType.INT32.value)
    return build.node("Mul", [build.node("Add", [begins, slots], "all"), mask], "places"), used


def _indices(build: Builder, stored: Stored, places: ir.Value | None) -> ir.Value:
    bits = index_bits(len(stored.dictionary))
    floats = _packed(build, "atoms", stored.atoms, bits, storage=stored.storage)
    picked = build.node("Cast", [floats], "picked", to=ir.DataType.INT32.value)
    return picked if places is None else build.node("Gather", [picked, places], "placed", axis=0)


def _gains(build: Builder, stored: Stored, places: ir.Value | None, used: ir.Value | None) -> ir.Value:
    gains = _values(build, stored)
    if places is None or used is None:
        return gains
    spread = build.node("Gather", [gains, places], "spread", axis=0)
    return build.node(
        "Mul", [spread, build.node("Cast", [used], "which", to=ir.DataType.FLOAT.value)], "masked"
    )


def _values(build: Builder, stored: Stored) -> ir.Value:
    """The whole gains as floats: int8 where each has a byte, else shifted to begin at 0."""
    bits = plane_bits(stored.values.size, stored.value_bits, storage=stored.storage, opset=build.opset)
    if bits == 8:
        held = build.constant("values", ir.tensor(stored.values))
        return build.node("Cast", [held], "whole", to=ir.DataType.FLOAT.value)
    middle = 2 ** (stored.value_bits - 1)
    codes = (stored.values.astype(np.int16) + middle).astype(np.uint8)
    floats = _packed(build, "values", codes, stored.value_bits, storage=stored.storage)
    return build.node("Sub", [floats, build.floats("middle", float(middle))], "whole")


def _packed(build: Builder, what: str, codes: NDArray[np.uint8], bits: int, *, storage: Storage) -> ir.Value:
    bits = plane_bits(codes.size, bits, storage=storage, opset=build.opset)
    if bits == 8:
        return build.constant(what, ir.tensor(codes))
    planes = tuple(ir.Tensor(plane) for plane in pack(codes, bits))
    return codes_as_floats(build, what, planes, bits, codes.shape)


def _dictionary(build: Builder, stored: Stored) -> ir.Value:
    halves = build.constant("dictionary", ir.tensor(stored.dictionary))
    floats = build.node("Cast", [halves], "unscaled", to=ir.DataType.FLOAT.value)
    return build.node("Mul", [floats, build.floats("factor", stored.factor)], "scaled")


def _shaped(build: Builder, layout: Layout) -> None:
    """(n, 1, block) to the stored shape, without what fills up short blocks."""
    blocks = build.nodes[-1].outputs[0]
    if layout.width % layout.block:
        rows = build.integers("rows", [layout.rows, layout.blocks * layout.block])
        filled = build.node("Reshape", [blocks, rows], "filled")
        blocks = _cut(build, filled, layout.width)
    build.node("Reshape", [blocks, build.integers("shape", layout.turned)], "shaped")
    if layout.order != tuple(range(len(layout.order))):
        back = [layout.order.index(axis) for axis in range(len(layout.order))]
        build.node("Transpose", [build.nodes[-1].outputs[0]], "turned", perm=back)


def _cut(build: Builder, value: ir.Value, width: int) -> ir.Value:
    if build.opset < 10:
        return build.node("Slice", [value], "cut", starts=[0], ends=[width], axes=[1])
    bounds = [build.integers(name, [number]) for name, number in (("from", 0), ("to", width), ("along", 1))]
    return build.node("Slice", [value, *bounds], "cut")


def _bytes(build: Builder) -> int:
    """Of the nodes and the constants that they read, as they are written into the file: names, types, shapes, data."""
    given = {id(value): value for node in build.nodes for value in node.inputs if value is not None}
    size = 0
    for value in given.values():
        tensor = value.const_value
        if tensor is not None and value.producer() is None:
            rank, name = len(tensor.shape), len(value.name or "")
            size += int(tensor.nbytes) + name + 2 * rank + 8
            size += 4 if tensor.nbytes > SMALL_TENSOR_BYTES else 0
    return size + sum(len(ir.serde.serialize_node(node).SerializeToString()) + 2 for node in build.nodes)
