"""Checks stored tensors before anything reads them: their sizes, and where their bytes are said to lie."""

from collections import defaultdict
from pathlib import Path, PurePosixPath

import onnx
import onnx_ir as ir

from compression.errors import InvalidModel
from compression.graph import walking
from compression.graph.limits import MAX_ALIASED_RATIO, MAX_ELEMENTS, MAX_EXTERNAL_BYTES, MAX_RANK


def check_tensors(model: onnx.ModelProto, folder: Path) -> tuple[Path, ...]:
    """Checks every tensor against the bytes that are there and returns the external files.

    Raises:
        InvalidModel: sizes overflow, bytes are missing, or an external file lies outside the folder, is
            a link, or is claimed many times over.
    """
    claimed: dict[Path, int] = defaultdict(int)
    for tensor in walking.tensors(model):
        needed = _needed_bytes(tensor)
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            file, length = _external_range(tensor, needed, folder)
            claimed[file] += length
        elif tensor.HasField("raw_data") and len(tensor.raw_data) != needed:
            raise InvalidModel(
                f"it holds {len(tensor.raw_data)} bytes where its shape needs {needed}", where=tensor.name
            )
    for file, total in claimed.items():
        if total > MAX_ALIASED_RATIO * file.stat().st_size or total > MAX_EXTERNAL_BYTES:
            raise InvalidModel(
                f"tensors claim {total} bytes of an external file of {file.stat().st_size} bytes",
                where=file.name,
            )
    return tuple(sorted(claimed))


def _needed_bytes(tensor: onnx.TensorProto) -> int:
    elements = 1
    if len(tensor.dims) > MAX_RANK:
        raise InvalidModel(f"it has {len(tensor.dims)} axes", where=tensor.name)
    for size in tensor.dims:
        if size < 0:
            raise InvalidModel(f"it has a negative size {size}", where=tensor.name)
        elements *= size
        if elements > MAX_ELEMENTS:
            raise InvalidModel("its sizes overflow", where=tensor.name)
    try:
        kind = ir.DataType(tensor.data_type)
    except ValueError as error:
        raise InvalidModel(f"its element type {tensor.data_type} is unknown", where=tensor.name) from error
    if kind in (ir.DataType.STRING, ir.DataType.UNDEFINED):
        return 0
    return (elements * kind.bitwidth + 7) // 8


def _external_range(tensor: onnx.TensorProto, needed: int, folder: Path) -> tuple[Path, int]:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    file = _confined(entries.get("location", ""), folder, tensor.name)
    try:
        offset, length = int(entries.get("offset", "0") or 0), int(entries.get("length", "0") or 0)
    except ValueError as error:
        raise InvalidModel("its external offset or length is no number", where=tensor.name) from error
    size = file.stat().st_size
    length = length or needed
    if offset < 0 or length != needed or offset + length > size:
        raise InvalidModel(
            f"it needs {needed} bytes and claims {length} at {offset} of {file.name}, which holds {size}",
            where=tensor.name,
        )
    return file, length


def _confined(location: str, folder: Path, name: str) -> Path:
    parts = PurePosixPath(location).parts
    if not parts or location.startswith("/") or ".." in parts or "\\" in location or "\x00" in location:
        raise InvalidModel(f"its external data lies outside the model's folder: {location!r}", where=name)
    path = folder
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise InvalidModel(f"its external data is a link: {location!r}", where=name)
    if not path.is_file():
        raise InvalidModel(
            f"its external data file {location!r} is missing",
            where=name,
            hint="upload a zip with the .onnx file and its external data files",
        )
    if path.stat().st_nlink > 1:
        raise InvalidModel(f"its external data is a hard link: {location!r}", where=name)
    return path
