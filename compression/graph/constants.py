"""Where a constant input of a node comes from: stored tensors, and the constant-only chains behind them."""

from collections.abc import Sequence
from contextlib import suppress

import onnx_ir as ir

MAX_CHAIN = 50
"""Nodes between a layer and the codebook of its weight."""
FIRST_INPUT_ONLY = frozenset({"DequantizeLinear", "QuantizeLinear", "GatherBlockQuantized"})
"""Operators whose other inputs are scales and zero points."""


def stored_tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor itself where the value is an initializer that cannot be overridden, or a Constant node."""
    if value is None or value.is_graph_input():
        return None
    producer = value.producer()
    if producer is None:
        return value.const_value
    return ir.convenience.get_const_tensor(value) if producer.op_type == "Constant" else None


def stored_number(value: ir.Value | None, beside: ir.Value | None = None) -> float | None:
    """A stored tensor of one element that does not widen what stands beside it."""
    tensor = stored_tensor(value)
    if tensor is None or tensor.size != 1:
        return None
    rank = len(tensor.shape)
    widens = rank > 0 and beside is not None and (beside.shape is None or len(beside.shape) < rank)
    return None if widens else float(tensor.numpy().reshape(-1)[0])


class Constants:
    """What is computed from stored tensors alone, of a graph that stays as it is meanwhile.

    Every value is looked at once, so that asking for all values of a deep graph takes no longer than the graph is.
    """

    def __init__(self) -> None:
        self._known: dict[ir.Value, tuple[int, ir.Value] | None] = {}

    def __contains__(self, value: ir.Value | None) -> bool:
        return value is not None and self._find(value) is not None

    def source(self, value: ir.Value) -> ir.Value | None:
        """The stored value that one is computed from by constants alone; None for anything else.

        A weight may be kept as DequantizeLinear(int8), Cast(int8) * scale or Reshape(Gather(codebook, indices)):
        of several stored tensors the one with the most elements counts.
        """
        found = self._find(value)
        return None if found is None else found[1]

    def codebook(self, value: ir.Value) -> ir.Value | None:
        """The stored tensor whose entries a constant chain picks by Gather, as Reshape(Gather(codebook, indices)).

        Of a product it stands on the second side, as in MatMul(gains, Gather(dictionary, indices)).
        """
        current: ir.Value | None = value
        for _ in range(MAX_CHAIN):
            producer = None if current is None else current.producer()
            if producer is None or not producer.inputs:
                return None
            if producer.op_type == "Gather":
                picked = producer.inputs[0]
                return None if picked is None else self.source(picked)
            current = producer.inputs[1 if producer.op_type == "MatMul" else 0]
        return None

    def _find(self, value: ir.Value) -> tuple[int, ir.Value] | None:
        """Elements and value of the main stored tensor behind one. Graphs are deeper than Python's stack."""
        waiting = [value]
        while value not in self._known:
            given = _given(waiting[-1])
            missing = next((item for item in given if item not in self._known), None)
            if missing is not None:
                waiting.append(missing)
            else:
                current = waiting.pop()
                self._known[current] = self._main(current, given)
        return self._known[value]

    def _main(self, value: ir.Value, given: Sequence[ir.Value]) -> tuple[int, ir.Value] | None:
        """The same, once it is known of all that the value is computed from."""
        tensor = stored_tensor(value)
        if tensor is not None:
            return int(tensor.size), value
        found = [source for source in map(self._known.get, given) if source is not None]
        if not found or len(found) < len(given):
            return None
        producer = value.producer()
        main_first = producer is not None and producer.op_type in FIRST_INPUT_ONLY
        return found[0] if main_first else max(found, key=lambda item: item[0])


def release(tensor: ir.TensorProtocol) -> None:
    """Lets go of the file behind an external tensor; it is mapped again when it is next read.

    Whoever still holds a view of it keeps the mapping alive.
    """
    if isinstance(tensor, ir.ExternalTensor):
        with suppress(BufferError):
            tensor.release()


def _given(value: ir.Value) -> tuple[ir.Value, ...]:
    """What a value is computed from, where that may be constants alone."""
    producer = value.producer()
    if value.is_graph_input() or producer is None or has_bodies(producer):
        return ()
    return tuple(item for item in producer.inputs if item is not None)


def has_bodies(node: ir.Node) -> bool:
    """Whether a node runs graphs of its own, as If and Loop do."""
    return any(
        attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
        for attribute in node.attributes.values()
    )
