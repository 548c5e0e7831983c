"""Brings trained values back into the graph they came from."""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from torch import Tensor

from compression.errors import NotTrainable
from compression.graph.constants import release
from compression.graph.naming import all_graphs
from compression.graph.trainable.view import TrainableGraph


def write_back(view: TrainableGraph, model: ir.Model) -> int:
    """Stores the view's parameters and statistics in the model, in place and by initializer name.

    Values are rounded to the type each tensor is stored in. One whose stored form would be the same keeps
    its bytes, wherever they lie; names, shapes and types never change.

    Returns:
        How many stored tensors changed.

    Raises:
        NotTrainable: the model has not the tensors that the view was made from; it is then unchanged.
    """
    stored = {name: value for graph in all_graphs(model) for name, value in graph.initializers.items()}
    pairs = list(_pairs(view, stored))
    changed = 0
    for value, tensor in pairs:
        changed += _store(value, tensor)
    return changed


def _pairs(view: TrainableGraph, stored: dict[str, ir.Value]) -> Iterator[tuple[ir.Value, Tensor]]:
    for name, tensor in (*view.weights.items(), *view.statistics.items()):
        value = stored.get(name)
        if value is None or value.const_value is None:
            raise NotTrainable(f"the model stores no tensor {name!r}", where=name)
        if tuple(value.const_value.shape.numpy()) != tuple(tensor.shape):
            raise NotTrainable(f"the stored tensor {name!r} has another shape than the view's", where=name)
        yield value, tensor


def _store(value: ir.Value, tensor: Tensor) -> bool:
    """Whether the stored tensor had to change."""
    old = value.const_value
    assert old is not None
    array = np.ascontiguousarray(tensor.detach().cpu().numpy().astype(old.dtype.numpy()))
    same = array.tobytes() == np.ascontiguousarray(old.numpy()).tobytes()
    release(old)
    if not same:
        value.const_value = ir.Tensor(array.reshape(tuple(tensor.shape)), dtype=old.dtype, name=old.name)
    return not same
