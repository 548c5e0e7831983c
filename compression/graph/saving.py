"""Writes a model, tensor by tensor, as one file or with its weights beside it."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
import onnx_ir as ir

from compression.errors import ResultRejected
from compression.graph import walking
from compression.graph.limits import SINGLE_FILE_BYTES, SMALL_TENSOR_BYTES
from compression.graph.shapes import INFERRED
from compression.graph.sparse import STORED_SPARSE, sparse_bytes, sparse_proto

GRAPH_FIELD, INITIALIZER_FIELD, RAW_DATA_FIELD = 7, 5, 9
"""Of ModelProto, GraphProto and TensorProto in onnx.proto."""


def save(model: ir.Model, path: Path) -> tuple[Path, ...]:
    """Writes the model and returns all files written.

    Up to 1.9 GB it is one file; a larger model keeps its weights in `<name>.data` beside it. The same
    model gives the same bytes. Files that the model itself still reads from may be written over.

    Raises:
        ResultRejected: the model holds something that ONNX cannot say.
    """
    try:
        return _save(model, path)
    except ir.serde.SerdeError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise ResultRejected(f"the model cannot be written: {cause}") from error


def _save(model: ir.Model, path: Path) -> tuple[Path, ...]:
    if file_bytes(model) <= SINGLE_FILE_BYTES:
        partial = path.with_name(path.name + ".partial")
        with partial.open("wb") as file:
            _write_single(model, file)
        partial.replace(path)
        return (path,)
    data = path.name + ".data"
    ir.save(model, path, format="protobuf", external_data=data, size_threshold_bytes=SMALL_TENSOR_BYTES)
    return path, path.with_name(data)


def file_bytes(model: ir.Model) -> int:
    """What the stored tensors take, about: all but the small ones."""
    return sum(
        sparse_bytes(int(np.count_nonzero(tensor.numpy())), tensor.dtype.bitwidth // 8)
        if value.meta.get(STORED_SPARSE)
        else tensor.nbytes
        for value, tensor in _large(model)
    )


def _large(model: ir.Model) -> Iterator[tuple[ir.Value, ir.TensorProtocol]]:
    """Stored tensors of the main graph and bodies that are worth streaming."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and _streams(tensor):
                yield value, tensor


def _streams(tensor: ir.TensorProtocol) -> bool:
    return tensor.dtype != ir.DataType.STRING and tensor.nbytes > SMALL_TENSOR_BYTES


def _write_single(model: ir.Model, file: BinaryIO) -> None:
    """The model with its large main-graph tensors appended to the graph message one at a time."""
    sparse = [value for value in model.graph.initializers.values() if value.meta.get(STORED_SPARSE)]
    large = [(value, tensor) for value, tensor in _large(model) if value.graph is model.graph]
    streamed = [item for item in large if item[0] not in sparse]
    with _inlined(model), _detached(model, [*sparse, *(value for value, _ in streamed)]):
        proto = ir.serde.serialize_model(model)
    _drop_inferred(model, proto)
    for value in sparse:
        if value.const_value is not None:
            proto.graph.sparse_initializer.append(sparse_proto(value.name or "", value.const_value))
    graph = proto.graph.SerializeToString(deterministic=True)
    proto.ClearField("graph")
    heads = [_head(value, tensor) for value, tensor in streamed]
    total = len(graph) + sum(
        len(_field(INITIALIZER_FIELD, len(head) + tensor.nbytes)) + len(head) + tensor.nbytes
        for head, (_, tensor) in zip(heads, streamed, strict=True)
    )
    file.write(proto.SerializeToString(deterministic=True))
    file.write(_field(GRAPH_FIELD, total))
    file.write(graph)
    for head, (_, tensor) in zip(heads, streamed, strict=True):
        file.write(_field(INITIALIZER_FIELD, len(head) + tensor.nbytes))
        file.write(head)
        _write_data(tensor, file)


def _drop_inferred(model: ir.Model, proto: onnx.ModelProto) -> None:
    """Takes out types and shapes that only this service has worked out, and those of stored tensors, which say so
    themselves: they would make the file larger."""
    names = {
        value.name
        for graph in model.graphs()
        for node in graph
        for value in node.outputs
        if value.meta.get(INFERRED)
    }
    for graph in walking.graphs_of(proto.graph):
        if isinstance(graph, onnx.GraphProto):
            told = names | {tensor.name for tensor in graph.initializer}
            kept = [item for item in graph.value_info if item.name not in told]
            del graph.value_info[:]
            graph.value_info.extend(kept)


def _head(value: ir.Value, tensor: ir.TensorProtocol) -> bytes:
    """A TensorProto up to where its bytes begin."""
    proto = onnx.TensorProto(
        name=value.name or "", data_type=int(tensor.dtype), dims=[int(size) for size in tensor.shape.numpy()]
    )
    start: bytes = proto.SerializeToString(deterministic=True)
    return start + _field(RAW_DATA_FIELD, tensor.nbytes)


def _write_data(tensor: ir.TensorProtocol, file: BinaryIO) -> None:
    begin = file.tell()
    if isinstance(tensor, ir.ExternalTensor):
        tensor.tofile(file)
    else:
        file.write(tensor.tobytes())
    if file.tell() - begin != tensor.nbytes:
        raise ValueError(f"{tensor.name} wrote {file.tell() - begin} bytes, not {tensor.nbytes}")


def _field(number: int, length: int) -> bytes:
    """The start of a length-delimited protobuf field."""
    return _varint(number << 3 | 2) + _varint(length)


def _varint(value: int) -> bytes:
    out = io.BytesIO()
    while value > 0x7F:
        out.write(bytes([value & 0x7F | 0x80]))
        value >>= 7
    out.write(bytes([value]))
    return out.getvalue()


@contextmanager
def _detached(model: ir.Model, values: list[ir.Value]) -> Iterator[None]:
    """Takes initializers out of the main graph and puts all back in their order."""
    stored = model.graph.initializers
    everything = dict(stored)
    try:
        for value in values:
            del stored[value.name or ""]
        yield
    finally:
        for name in list(stored):
            del stored[name]
        for value in everything.values():
            stored.add(value)


@contextmanager
def _inlined(model: ir.Model) -> Iterator[None]:
    """Reads small and body tensors that still lie in external files, which the result must not refer to."""
    changed: list[tuple[ir.Value, ir.TensorProtocol]] = []
    try:
        for graph in model.graphs():
            for value in graph.initializers.values():
                tensor = value.const_value
                if isinstance(tensor, ir.ExternalTensor) and not (_streams(tensor) and graph is model.graph):
                    changed.append((value, tensor))
                    value.const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)
        yield
    finally:
        for value, tensor in changed:
            value.const_value = tensor
