"""Columns: one named array of a dataset, read a few samples at a time."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from compression.data.dtypes import UNKNOWN, as_dtype
from compression.errors import InvalidDataset
from compression.summary import ArraySummary, TensorSummary

Rows = Sequence[int] | np.ndarray
"""Numbers of samples."""


class Column(ABC):
    """Samples along the first axis. Reading is lazy: memory holds what `read` was asked for and no more."""

    summary: ArraySummary

    @property
    def samples(self) -> int:
        return self.summary.shape[0]

    def batches(self, target: TensorSummary) -> bool:
        """Whether several samples can be stacked for this input; not where they differ in shape."""
        return not self.summary.ragged

    @abstractmethod
    def read(self, start: int, stop: int, target: TensorSummary | None = None) -> np.ndarray:
        """Samples start..stop stacked on the first axis, laid out for `target` if the column can do that."""

    def take(self, rows: Rows, target: TensorSummary | None = None) -> np.ndarray:
        """Samples by number, in the order asked for, stacked on the first axis."""
        return np.concatenate([self.read(int(row), int(row) + 1, target) for row in rows])

    def close(self) -> None:  # noqa: B027
        """Lets go of files; most columns hold none open."""


class ArrayColumn(Column):
    """Samples of one shape, in anything that slices like an array: a memory map, a safetensors slice."""

    def __init__(self, name: str, array: np.ndarray) -> None:
        self._array = array
        self.summary = ArraySummary(name=name, dtype=array.dtype.name, shape=tuple(array.shape))

    def read(self, start: int, stop: int, target: TensorSummary | None = None) -> np.ndarray:
        return np.ascontiguousarray(self._array[start:stop])

    def take(self, rows: Rows, target: TensorSummary | None = None) -> np.ndarray:
        return np.asarray(self._array[np.asarray(rows, np.int64)])


class RaggedColumn(Column):
    """Samples of one rank and type, each in an array of its own."""

    def __init__(self, name: str, arrays: Sequence[np.ndarray]) -> None:
        self._arrays = arrays
        first = arrays[0]
        for index, array in enumerate(arrays):
            if array.ndim != first.ndim or array.dtype != first.dtype:
                raise InvalidDataset(
                    f"sample {index} of {name!r} is {array.dtype}, rank {array.ndim}; "
                    f"the first is {first.dtype}, rank {first.ndim}",
                    where=name,
                )
        shapes = {array.shape for array in arrays}
        largest = tuple(max(sizes) for sizes in zip(*shapes, strict=True))
        self.summary = ArraySummary(
            name=name, dtype=first.dtype.name, shape=(len(arrays), *largest), ragged=len(shapes) > 1
        )

    def read(self, start: int, stop: int, target: TensorSummary | None = None) -> np.ndarray:
        return np.stack([np.asarray(array) for array in self._arrays[start:stop]])


def memory_mapped(name: str, array: np.ndarray) -> ArrayColumn:
    """A column over `array`, which must have at least one axis and hold numbers or text.

    Raises:
        InvalidDataset: a scalar, or elements of a kind no model takes.
    """
    check_kind(name, array.dtype)
    if array.ndim == 0:
        raise InvalidDataset(
            f"{name!r} is a single number; the first axis of every array counts samples",
            where=name,
            hint="repeat it, once for each sample: an array [samples] feeds a scalar input",
        )
    return ArrayColumn(name, array)


def check_kind(name: str, dtype: np.dtype) -> None:
    if dtype.hasobject:
        raise InvalidDataset(
            f"{name!r} holds Python objects, which are never unpickled",
            where=name,
            hint="save plain numeric arrays; samples that differ in shape go into a zip of .npy files",
        )
    if dtype.names is not None or dtype.subdtype is not None:
        raise InvalidDataset(
            f"{name!r} has a structured type {dtype}", where=name, hint="save one plain array per field"
        )
    if dtype.kind not in "biufUS" and dtype.name != "bfloat16":
        raise InvalidDataset(
            f"{name!r} has the type {dtype}, which no model input takes",
            where=name,
            hint="convert it to float32, an integer type or bool (bfloat16 travels in .safetensors)",
        )


def cast(values: np.ndarray, target: TensorSummary, where: str) -> np.ndarray:
    """`values` in the element type of `target`.

    Raises:
        InvalidDataset: an integer that does not fit the narrower integer type.
    """
    wanted = values.dtype if target.dtype == UNKNOWN else as_dtype(target.dtype)
    if values.dtype == wanted:
        return values
    if wanted.kind in "iu" and values.dtype.kind in "iu" and values.size:
        bounds = np.iinfo(wanted)
        if int(values.min()) < bounds.min or int(values.max()) > bounds.max:
            raise InvalidDataset(
                f"{where!r} holds values outside {wanted}, the type of the input {target.name!r}", where=where
            )
    return values.astype(wanted)
