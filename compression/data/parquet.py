"""Reads .parquet tables: a column of numbers is an array, a column of lists an array with more axes."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compression.data.columns import ArrayColumn, Column
from compression.data.fit import LABELS
from compression.data.limits import Limits
from compression.data.npy import map_file
from compression.errors import InvalidDataset

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 4096


class ParquetTable:
    """A table opened as columns, with what was left out and the names that text labels stand for."""

    def __init__(self, path: Path, workdir: Path, limits: Limits) -> None:
        self.warnings: list[str] = []
        self.classes: tuple[str, ...] | None = None
        self._workdir = workdir
        self._file = _open(path)
        self._rows: int = self._file.metadata.num_rows
        if self._rows == 0:
            raise InvalidDataset("the table has no rows")
        self._check(path.stat().st_size, limits)

    def columns(self) -> list[Column]:
        found: list[Column] = []
        for index, field in enumerate(self._file.schema_arrow):
            if _is_text(field.type) and field.name == LABELS:
                found.append(self._text_labels())
            elif _is_numeric(field.type):
                found.append(ArrayColumn(field.name, self._copy_out(field.name, index)))
            else:
                self.warnings.append(f"the column {field.name!r} of {field.type} was left out")
        return found

    def _check(self, file_bytes: int, limits: Limits) -> None:
        metadata = self._file.metadata
        groups = (metadata.row_group(index) for index in range(metadata.num_row_groups))
        limits.check_opened_size((group.total_byte_size for group in groups), file_bytes)
        self._total_limit = limits.total_bytes

    def _copy_out(self, name: str, index: int) -> np.ndarray:
        """Streams a column into a .npy file of its final shape, which the first rows tell."""
        path = self._workdir / f"{index}.npy"
        out: np.ndarray | None = None
        done = 0
        for batch in self._file.iter_batches(batch_size=ROWS, columns=[name]):
            values = _to_numpy(batch.column(0), name)
            if out is None:
                if self._rows * (values.nbytes // max(len(values), 1)) > self._total_limit:
                    raise InvalidDataset(f"the column {name!r} opens to too much", where=name)
                out = np.lib.format.open_memmap(path, "w+", values.dtype, (self._rows, *values.shape[1:]))
            if values.shape[1:] != out.shape[1:]:
                raise InvalidDataset(
                    f"the lists in {name!r} differ in length",
                    where=name,
                    hint="pad them, or upload a zip with one folder of .npy files per array",
                )
            out[done : done + len(values)] = values
            done += len(values)
        if out is None or done != self._rows:
            raise InvalidDataset(f"the column {name!r} has {done} rows of {self._rows}", where=name)
        del out
        return map_file(path)

    def _text_labels(self) -> Column:
        names = self._file.read(columns=[LABELS]).column(0).to_pylist()
        if any(name is None for name in names):
            raise InvalidDataset("some labels are missing", where=LABELS)
        self.classes = tuple(sorted(set(names)))
        number = {name: index for index, name in enumerate(self.classes)}
        self.warnings.append("text labels were numbered in alphabetical order")
        return ArrayColumn(LABELS, np.array([number[name] for name in names], np.int64))


def _open(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path, memory_map=True)
    except (pa.ArrowException, OSError) as error:
        raise InvalidDataset(f"no readable .parquet file: {error}") from error


def _to_numpy(column: "pa.Array", name: str) -> np.ndarray:
    """The values of one piece of a column; nested lists become axes."""
    if column.null_count:
        raise InvalidDataset(f"the column {name!r} has missing values", where=name, hint="fill them in")
    shape = [len(column)]
    while _is_list(column.type):
        rows = len(column)
        lengths = np.unique(column.value_lengths().to_numpy(zero_copy_only=False)) if rows else np.zeros(1)
        if len(lengths) != 1:
            raise InvalidDataset(
                f"the lists in {name!r} differ in length",
                where=name,
                hint="pad them, or upload a zip with one folder of .npy files per array",
            )
        shape.append(int(lengths[0]))
        column = column.flatten()
        if column.null_count:
            raise InvalidDataset(f"the lists in {name!r} have missing values", where=name)
    return np.asarray(column.to_numpy(zero_copy_only=False)).reshape(shape)


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _is_numeric(kind: Any) -> bool:
    import pyarrow as pa

    while _is_list(kind):
        kind = kind.value_type
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind))
