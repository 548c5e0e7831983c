"""Tensors that need not be watched, since they are a growing function of one that is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Function = Callable[[NDArray[Any]], NDArray[Any]]

_SAME = frozenset({"Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Identity"})


@dataclass(frozen=True, kw_only=True)
class Derived:
    """A tensor, value by value, as a function of another one; None is the identity."""

    source: str
    function: Function | None


def derive(tensors: Sequence[ir.Value]) -> Mapping[str, Derived]:
    """Which of the tensors hold what another one of them holds, put through a function that never falls.

    Extremes and quantiles go through such a function as they are, so that neither is less exact. A source is
    never derived itself.
    """
    found: dict[str, Derived] = {}
    names = {value.name for value in tensors}
    for value in tensors:
        function, source = None, value
        while (step := _step(source)) is not None and step[0].name in names:
            source = step[0]
            function = _chained(step[1], function)
        if source is not value:
            found[value.name or ""] = Derived(source=source.name or "", function=function)
    return found


def _step(value: ir.Value) -> tuple[ir.Value, Function | None] | None:
    """What a tensor is made from, and how; None where that does not grow value by value."""
    node = value.producer()
    if node is None or node.domain not in ("", "ai.onnx") or not node.inputs or node.inputs[0] is None:
        return None
    if node.inputs[0].dtype != value.dtype or node.graph is not _graph_of(node.inputs[0], node):
        return None
    if node.op_type in _SAME:
        return node.inputs[0], None
    if node.op_type in _GROWING and value.dtype == ir.DataType.FLOAT:
        return node.inputs[0], _GROWING[node.op_type]
    return None


def _graph_of(value: ir.Value, reader: ir.Node) -> object:
    """Where a value is made; an input or initializer counts to its reader's graph only at the top."""
    producer = value.producer()
    return reader.graph if producer is None and value.is_graph_input() else producer and producer.graph


def _chained(first: Function | None, then: Function | None) -> Function | None:
    if first is None or then is None:
        return first or then
    return _Chain(first, then)


@dataclass(frozen=True)
class _Chain:
    first: Function
    then: Function

    def __call__(self, values: NDArray[Any]) -> NDArray[Any]:
        found: NDArray[Any] = self.then(self.first(values))
        return found


def _relu(values: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(np.maximum(values, 0))


def _sigmoid(values: NDArray[Any]) -> NDArray[Any]:
    """In double precision and without overflow."""
    wide = np.asarray(values, np.float64)
    small = np.exp(-np.abs(wide))
    return np.asarray(np.where(wide >= 0, 1, small) / (1 + small), np.float32)


def _tanh(values: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(np.tanh(values))


_GROWING: Mapping[str, Function] = {"Relu": _relu, "Sigmoid": _sigmoid, "Tanh": _tanh}
