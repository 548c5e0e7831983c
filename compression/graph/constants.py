"""Where a constant input of a node comes from: stored tensors, and the constant-only chains behind them."""

from collections.abc import Sequence
from contextlib import suppress

import onnx_ir as ir

MAX_CHAIN = 50
FIRST_INPUT_ONLY = frozenset({"DequantizeLinear", "QuantizeLinear", "GatherBlockQuantized"})
"""Operators whose other inputs are scales and zero points."""

Known = dict[ir.Value, tuple[int, ir.Value] | None]


def stored_tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor itself where the value is an initializer that cannot be overridden, or a Constant node."""
    if value is None or value.is_graph_input():
        return None
    producer = value.producer()
    if producer is None:
        return value.const_value
    return ir.convenience.get_const_tensor(value) if producer.op_type == "Constant" else None


def stored_source(value: ir.Value | None) -> ir.Value | None:
    """The stored value that a node's input is computed from by constants alone; None for anything else.

    A weight may be kept as DequantizeLinear(int8), Cast(int8) * scale or Reshape(Gather(codebook, indices)):
    of several stored tensors the one with the most elements counts.
    """
    found = _source(value, MAX_CHAIN, {})
    return None if found is None else found[1]


def stored_codebook(value: ir.Value | None) -> ir.Value | None:
    """The stored tensor whose entries a constant chain picks by Gather, as Reshape(Gather(codebook, indices)).

    Of a product it stands on the second side, as in MatMul(gains, Gather(dictionary, indices)).
    """
    for _ in range(MAX_CHAIN):
        producer = None if value is None else value.producer()
        if producer is None or not producer.inputs:
            return None
        if producer.op_type == "Gather":
            return stored_source(producer.inputs[0])
        value = producer.inputs[1 if producer.op_type == "MatMul" else 0]
    return None


def release(tensor: ir.TensorProtocol) -> None:
    """Lets go of the file behind an external tensor; it is mapped again when it is next read.

    Whoever still holds a view of it keeps the mapping alive.
    """
    if isinstance(tensor, ir.ExternalTensor):
        with suppress(BufferError):
            tensor.release()


def is_constant(value: ir.Value | None) -> bool:
    return _source(value, MAX_CHAIN, {}) is not None


def _source(value: ir.Value | None, depth: int, known: Known) -> tuple[int, ir.Value] | None:
    """Elements and value of the main stored tensor behind `value`; `known` keeps shared chains cheap."""
    if value is None or value.is_graph_input() or depth == 0:
        return None
    if value not in known:
        known[value] = None
        known[value] = _look(value, depth, known)
    return known[value]


def _look(value: ir.Value, depth: int, known: Known) -> tuple[int, ir.Value] | None:
    tensor = stored_tensor(value)
    if tensor is not None:
        return int(tensor.size), value
    producer = value.producer()
    if producer is None or not producer.inputs or _has_bodies(producer):
        return None
    given = [item for item in producer.inputs if item is not None]
    found = _sources(given, depth, known)
    if found is None:
        return None
    return found[0] if producer.op_type in FIRST_INPUT_ONLY else max(found, key=lambda item: item[0])


def _sources(values: Sequence[ir.Value], depth: int, known: Known) -> list[tuple[int, ir.Value]] | None:
    found: list[tuple[int, ir.Value]] = []
    for value in values:
        source = _source(value, depth - 1, known)
        if source is None:
            return None
        found.append(source)
    return found


def _has_bodies(node: ir.Node) -> bool:
    return any(
        attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
        for attribute in node.attributes.values()
    )
