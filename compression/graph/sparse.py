"""Sparse initializers become dense ones: neither onnx_ir nor most tools know them."""

import numpy as np
import onnx
from onnx import numpy_helper

from compression.errors import InvalidModel
from compression.graph import walking
from compression.graph.limits import MAX_INLINE_BYTES


def densify(model: onnx.ModelProto) -> int:
    """Turns every sparse initializer into a dense one, in place, and tells how many there were.

    Raises:
        InvalidModel: its indices do not fit its shape, or it would grow too large.
    """
    count = 0
    for graph in walking.graphs(model):
        if isinstance(graph, onnx.GraphProto):
            for sparse in graph.sparse_initializer:
                graph.initializer.append(_dense(sparse))
                count += 1
            del graph.sparse_initializer[:]
    return count


def _dense(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    name = sparse.values.name
    values = numpy_helper.to_array(sparse.values).reshape(-1)
    indices = numpy_helper.to_array(sparse.indices).astype(np.int64)
    shape = tuple(sparse.dims)
    elements = 1
    for size in shape:
        elements *= max(size, 0)
    if elements * max(values.itemsize, 1) > MAX_INLINE_BYTES:
        raise InvalidModel(f"this sparse tensor would open to {elements} elements", where=name)
    flat = _flat(indices, shape, name)
    if len(flat) != len(values) or (len(flat) and (flat.min() < 0 or flat.max() >= elements)):
        raise InvalidModel("the indices of this sparse tensor do not fit its shape", where=name)
    dense = np.zeros(elements, values.dtype)
    dense[flat] = values
    return numpy_helper.from_array(dense.reshape(shape), name)


def _flat(indices: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    if indices.ndim == 1:
        return indices
    if indices.ndim != 2 or indices.shape[1] != len(shape):
        raise InvalidModel("the indices of this sparse tensor do not fit its shape", where=name)
    if (indices < 0).any() or (indices >= np.asarray(shape)).any():
        raise InvalidModel("the indices of this sparse tensor lie outside its shape", where=name)
    flat: np.ndarray = np.ravel_multi_index(tuple(indices.T), shape)
    return flat
