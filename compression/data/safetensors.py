"""Reads .safetensors files: arrays by name, sliced from disk."""

from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from compression.data.columns import Column
from compression.data.dtypes import as_dtype
from compression.errors import InvalidDataset
from compression.summary import ArraySummary, TensorSummary

DTYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32",
    "I32": "int32", "U64": "uint64", "I64": "int64", "F16": "float16", "BF16": "bfloat16", "F32": "float32",
    "F64": "float64",
}  # fmt: skip


class SafetensorColumn(Column):
    """A slice of a safetensors file; the library has checked its offsets against the file."""

    def __init__(self, name: str, tensor: Any) -> None:
        self._slice = tensor
        kind = tensor.get_dtype()
        shape = tuple(tensor.get_shape())
        if kind not in DTYPES:
            raise InvalidDataset(f"{name!r} has the type {kind}, which no model input takes", where=name)
        if not shape:
            raise InvalidDataset(
                f"{name!r} is a single number; the first axis of every array counts samples",
                where=name,
                hint="repeat it, once for each sample: an array [samples] feeds a scalar input",
            )
        self.summary = ArraySummary(name=name, dtype=DTYPES[kind], shape=shape)

    def read(self, start: int, stop: int, target: TensorSummary | None = None) -> np.ndarray:
        return np.ascontiguousarray(self._slice[start:stop]).view(as_dtype(self.summary.dtype))


def read_safetensors(path: Path) -> list[Column]:
    """One column per tensor.

    Raises:
        InvalidDataset: a header that does not fit the file, or a type that no input takes.
    """
    try:
        file: Any = safe_open(path, framework="numpy")
        return [SafetensorColumn(name, file.get_slice(name)) for name in file.keys()]  # noqa: SIM118
    except SafetensorError as error:
        raise InvalidDataset(f"no readable .safetensors file: {error}") from error
