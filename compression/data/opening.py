"""Opens a dataset file by what it holds, whatever it is called."""

import zipfile
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from compression.data.columns import Column
from compression.data.dataset import Dataset, check_counts
from compression.data.limits import Limits
from compression.data.npz import check_members, read_folders, read_npz
from compression.errors import InvalidDataset
from compression.summary import DatasetSummary

Format = Literal["npz", "npy_folders", "safetensors", "parquet", "images"]
TAKEN = "datasets are .npz, .safetensors, .parquet, or a zip of images or of one folder of .npy per array"
SCAN_BYTES = 16 * 2**20


def inspect_dataset(path: Path, workdir: Path, limits: Limits | None = None) -> DatasetSummary:
    """What a dataset file holds, with warnings about values that spoil a measurement (NaN, infinity).

    Raises:
        InvalidDataset: see `open_dataset`.
    """
    dataset = open_dataset(path, workdir, limits)
    try:
        arrays = [array.name for array in dataset.summary.arrays]
        found = [text for name in arrays if (text := _not_finite(dataset.column(name)))]
        return dataset.summary.model_copy(update={"warnings": (*dataset.summary.warnings, *found)})
    finally:
        dataset.close()


def open_dataset(path: Path, workdir: Path, limits: Limits | None = None) -> Dataset:
    """Opens a dataset. `workdir` takes extracted arrays and must outlive the dataset.

    Nothing is unpickled, and what the file declares is held against `limits` before it is read.

    Raises:
        InvalidDataset: an unknown format, broken or hostile contents, no samples, or counts that differ.
    """
    limits = limits or Limits()
    scratch = _fresh_folder(workdir)
    kind = _sniff(path)
    columns: list[Column]
    classes: tuple[str, ...] | None = None
    warnings: tuple[str, ...] = ()
    if kind == "zip":
        format_, columns, classes, warnings = _open_zip(path, scratch, limits)
    elif kind == "parquet":
        from compression.data.parquet import ParquetTable

        table = ParquetTable(path, scratch, limits)
        format_, columns = "parquet", table.columns()
        classes, warnings = table.classes, tuple(table.warnings)
    else:
        from compression.data.safetensors import read_safetensors

        format_, columns = "safetensors", read_safetensors(path)
    if len(columns) > limits.arrays:
        raise InvalidDataset(f"the dataset holds {len(columns)} arrays, {limits.arrays} are allowed")
    summary = DatasetSummary(
        format=format_,
        samples=check_counts(columns),
        size_bytes=path.stat().st_size,
        arrays=tuple(column.summary for column in columns),
        classes=classes,
        warnings=warnings,
    )
    return Dataset(summary, columns)


def _open_zip(
    path: Path, scratch: Path, limits: Limits
) -> tuple[Format, list[Column], tuple[str, ...] | None, tuple[str, ...]]:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise InvalidDataset(f"no readable archive: {error}", hint=TAKEN) from error
    with archive:
        size = path.stat().st_size
        members = [
            member for member in check_members(archive, size, limits) if not _is_clutter(member.filename)
        ]
        names = [PurePosixPath(member.filename) for member in members]
        if names and all(name.suffix == ".npy" for name in names):
            if all(len(name.parts) == 1 for name in names):
                return "npz", read_npz(archive, scratch), None, ()
            return "npy_folders", read_folders(archive, members, scratch), None, ()
        return _images(path, members, limits)


def _images(
    path: Path, members: list[zipfile.ZipInfo], limits: Limits
) -> tuple[Format, list[Column], tuple[str, ...] | None, tuple[str, ...]]:
    from compression.data.images import SUFFIXES, read_images

    images = [member for member in members if PurePosixPath(member.filename).suffix.lower() in SUFFIXES]
    if not images:
        found = ", ".join(member.filename for member in members[:5]) or "nothing"
        raise InvalidDataset(f"the archive holds neither arrays nor images; it holds {found}", hint=TAKEN)
    columns, classes = read_images(path, images, limits)
    warnings = ["pixels reach float inputs as 0..1; for another normalisation upload the arrays as .npz"]
    if len(images) < len(members):
        warnings.append(f"{len(members) - len(images)} files that are no images were left out")
    return "images", columns, classes, tuple(warnings)


def _sniff(path: Path) -> Literal["zip", "parquet", "safetensors"]:
    """The format by the first bytes; a name can say anything.

    Raises:
        InvalidDataset: none that is taken, with what to do instead.
    """
    with path.open("rb") as file:
        head = file.read(16)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if head.startswith(b"PAR1"):
        return "parquet"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size:
        return "safetensors"
    if head.startswith(b"\x93NUMPY"):
        raise InvalidDataset(
            "a single .npy array has no name to match a model's input",
            hint="save it with numpy.savez(path, input_name=array)",
        )
    if head.startswith(b"\x80"):
        raise InvalidDataset("this is a pickle, and pickles are never opened: they can run code", hint=TAKEN)
    raise InvalidDataset("the file is empty" if not head else "this is no dataset format", hint=TAKEN)


def _is_clutter(name: str) -> bool:
    """Files that operating systems leave in archives."""
    parts = PurePosixPath(name).parts
    return any(part.startswith((".", "__MACOSX")) or part == "Thumbs.db" for part in parts)


def _fresh_folder(workdir: Path) -> Path:
    """A folder of its own, so that several datasets can share a workdir."""
    for index in range(1_000_000):
        try:
            folder = workdir / f"dataset-{index}"
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise InvalidDataset("no free folder in the work folder")


def _not_finite(column: Column) -> str | None:
    """A warning where an array of floats holds NaN or infinity, found piece by piece."""
    summary = column.summary
    if "float" not in summary.dtype:
        return None
    samples, *rest = summary.shape
    rows = max(1, SCAN_BYTES // max(1, 8 * int(np.prod(rest, dtype=np.float64))))
    if summary.ragged:
        rows = 1
    bad = 0
    for start in range(0, samples, rows):
        values = column.read(start, min(start + rows, samples)).astype(np.float32, copy=False)
        bad += int(np.count_nonzero(~np.isfinite(values)))
    return f"{summary.name!r} holds {bad:,} values that are NaN or infinite" if bad else None
