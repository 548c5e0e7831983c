"""Bytes made bit by bit: kept in memory while they are few, in a file once they are many."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

IN_MEMORY_BYTES = 1 << 20


@dataclass(kw_only=True)
class Spill:
    """A folder of such files. They must live until the model is saved."""

    folder: Path
    count: int = 0

    def sink(self) -> "Sink":
        self.count += 1
        return Sink(path=self.folder / f"weights-{self.count}.bin")


@dataclass(kw_only=True)
class Sink:
    """One tensor's bytes, in order."""

    path: Path
    _parts: list[bytes] = field(default_factory=list)
    _held: int = 0
    _file: BinaryIO | None = None

    def write(self, array: NDArray[Any]) -> None:
        self._parts.append(array.tobytes())
        self._held += array.nbytes
        if self._held > IN_MEMORY_BYTES:
            self._flush()

    def tensor(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> ir.TensorProtocol:
        """What was written, in a shape; a file-backed tensor where it was much. Call it once, at the end."""
        if self._file is None:
            data = b"".join(self._parts)
            return ir.Tensor(np.frombuffer(data, dtype).reshape(shape))
        self._flush()
        self._file.close()
        return ir.ExternalTensor(
            self.path.name,
            0,
            self.path.stat().st_size,
            ir.DataType.from_numpy(dtype),
            shape=ir.Shape(shape),
            name=self.path.name,
            base_dir=self.path.parent,
        )

    def _flush(self) -> None:
        if self._file is None:
            self._file = self.path.open("wb")
        for part in self._parts:
            self._file.write(part)
        self._parts, self._held = [], 0


def reshaped(tensor: ir.TensorProtocol, shape: tuple[int, ...]) -> ir.TensorProtocol:
    """The same bytes in another shape, not read."""
    if isinstance(tensor, ir.ExternalTensor):
        return ir.ExternalTensor(
            tensor.location,
            tensor.offset,
            tensor.length,
            tensor.dtype,
            shape=ir.Shape(shape),
            name=tensor.name or "",
            base_dir=tensor.base_dir,
        )
    return ir.Tensor(tensor.numpy().reshape(shape))
