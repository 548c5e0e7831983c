"""Sparse tensors of a file: dense as soon as it is opened, since neither onnx_ir nor most tools know them, and written
as sparse ones where a value is marked so."""

from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from onnx import numpy_helper

from compression.errors import InvalidModel, UnsupportedModel
from compression.graph import walking
from compression.graph.limits import MAX_INLINE_BYTES, MAX_UNPACK_RATIO

STORED_SPARSE = "stored_sparse"
"""In `meta` of a value of the main graph: `save` writes its tensor as a sparse initializer."""
INDEX_BYTES = 8
"""ONNX takes int64 only, one for each value that is not zero: its place in the flattened tensor."""
HEAD_BYTES = 40
"""What the message of a sparse tensor costs beyond that of a dense one, about."""


def sparse_bytes(nonzeros: int, width: int) -> int:
    """Of a tensor in the file, with `width` bytes for each value that is not zero."""
    return nonzeros * (width + INDEX_BYTES) + HEAD_BYTES


def sparse_proto(name: str, tensor: ir.TensorProtocol) -> onnx.SparseTensorProto:
    """The tensor without its zeros; -0.0 is one of them and comes back as 0.0."""
    array = tensor.numpy().reshape(-1)
    places = np.flatnonzero(array != 0)
    values = onnx.TensorProto(
        name=name, data_type=int(tensor.dtype), dims=[len(places)], raw_data=array[places].tobytes()
    )
    indices = onnx.TensorProto(
        data_type=onnx.TensorProto.INT64, dims=[len(places)], raw_data=places.astype("<i8").tobytes()
    )
    return onnx.SparseTensorProto(values=values, indices=indices, dims=[int(s) for s in tensor.shape.numpy()])


def densify(model: onnx.ModelProto) -> int:
    """Turns every sparse initializer and constant into a dense one, in place, and tells how many there were.

    Raises:
        InvalidModel: indices do not fit the shape, or what the file holds would grow too large.
        UnsupportedModel: an operator other than Constant has a sparse attribute.
    """
    allowance, count = _Allowance(), 0
    for graph in walking.graphs(model):
        if isinstance(graph, onnx.GraphProto):
            for sparse in graph.sparse_initializer:
                graph.initializer.append(_dense(sparse, allowance))
                count += 1
            del graph.sparse_initializer[:]
        for node in graph.node:
            count += _densify_attributes(node, allowance)
    return count


@dataclass
class _Allowance:
    """Bytes that the sparse tensors of a file may yet grow to, beyond what is in proportion to what they hold."""

    free: int = MAX_INLINE_BYTES

    def take(self, name: str, elements: int, width: int, held: int) -> None:
        size = elements * max(width, 1)
        if size > MAX_UNPACK_RATIO * held:
            self.free -= size
        if self.free < 0:
            raise InvalidModel(
                f"this sparse tensor of {held:,} bytes would open to {elements:,} elements",
                where=name,
                hint=f"sparse tensors may open to {MAX_UNPACK_RATIO} times their bytes, and a few to more",
            )


def _densify_attributes(node: onnx.NodeProto, allowance: _Allowance) -> int:
    count = 0
    for attribute in node.attribute:
        if attribute.HasField("sparse_tensor") and node.op_type == "Constant":
            dense = _dense(attribute.sparse_tensor, allowance)
            attribute.Clear()
            attribute.CopyFrom(onnx.helper.make_attribute("value", dense))
            count += 1
        elif attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
            raise UnsupportedModel(
                f"the attribute {attribute.name!r} of {node.op_type} is a sparse tensor",
                where=node.name or None,
            )
    return count


def _dense(sparse: onnx.SparseTensorProto, allowance: _Allowance) -> onnx.TensorProto:
    name = sparse.values.name
    shape = tuple(sparse.dims)
    values, indices = _arrays(sparse, name)
    elements = 1
    for size in shape:
        elements *= max(size, 0)
    allowance.take(name, elements, values.itemsize, values.nbytes + indices.nbytes)
    flat = _flat(indices, shape, name)
    if len(flat) != len(values) or (len(flat) and (flat.min() < 0 or flat.max() >= elements)):
        raise InvalidModel("the indices of this sparse tensor do not fit its shape", where=name)
    dense = np.zeros(elements, values.dtype)
    dense[flat] = values
    return numpy_helper.from_array(dense.reshape(shape), name)


def _arrays(sparse: onnx.SparseTensorProto, name: str) -> tuple[np.ndarray, np.ndarray]:
    parts = (sparse.values, sparse.indices)
    if any(part.data_location == onnx.TensorProto.EXTERNAL for part in parts):
        raise InvalidModel("this sparse tensor keeps its data in another file", where=name)
    try:
        values, indices = (numpy_helper.to_array(part) for part in parts)
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidModel(f"this sparse tensor is broken: {error}", where=name) from error
    if indices.dtype.kind not in "iu":
        raise InvalidModel("the indices of this sparse tensor are no integers", where=name)
    return values.reshape(-1), indices.astype(np.int64)


def _flat(indices: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    if indices.ndim == 1:
        return indices
    if indices.ndim != 2 or indices.shape[1] != len(shape):
        raise InvalidModel("the indices of this sparse tensor do not fit its shape", where=name)
    if (indices < 0).any() or (indices >= np.asarray(shape)).any():
        raise InvalidModel("the indices of this sparse tensor lie outside its shape", where=name)
    flat: np.ndarray = np.ravel_multi_index(tuple(indices.T), shape)
    return flat
