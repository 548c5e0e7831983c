"""Reads .npz files, and zips with one folder of .npy files per array for samples that differ in shape."""

import zipfile
from pathlib import Path, PurePosixPath

from compression.data.columns import Column, RaggedColumn, memory_mapped
from compression.data.limits import Limits
from compression.data.npy import extract
from compression.errors import InvalidDataset


def read_npz(archive: zipfile.ZipFile, workdir: Path) -> list[Column]:
    """One column per array, in the order of the file; each is copied out to `workdir` and memory-mapped."""
    columns: list[Column] = []
    for index, member in enumerate(archive.infolist()):
        name = member.filename.removesuffix(".npy")
        if any(column.summary.name == name for column in columns):
            raise InvalidDataset(f"the file holds two arrays named {name!r}", where=name)
        array = extract(archive, member, workdir / f"{index}.npy", name)
        columns.append(memory_mapped(name, array))
    return columns


def read_folders(archive: zipfile.ZipFile, members: list[zipfile.ZipInfo], workdir: Path) -> list[Column]:
    """One column per folder; its files, in order of their names, are the samples without a sample axis.

    A single .npy beside the folders (labels.npy) is a column of its own.
    """
    folders: dict[str, list[zipfile.ZipInfo]] = {}
    columns: list[Column] = []
    for member in members:
        path = PurePosixPath(member.filename)
        folder = str(path.parent)
        if folder == ".":
            array = extract(archive, member, workdir / f"top-{len(columns)}.npy", path.stem)
            columns.append(memory_mapped(path.stem, array))
        else:
            folders.setdefault(folder, []).append(member)
    for folder, files in folders.items():
        columns.append(_ragged(archive, folder, files, workdir / f"folder-{len(columns)}"))
    return columns


def _ragged(archive: zipfile.ZipFile, folder: str, files: list[zipfile.ZipInfo], target: Path) -> Column:
    target.mkdir()
    files.sort(key=lambda member: member.filename)
    arrays = [
        extract(archive, member, target / f"{index}.npy", member.filename)
        for index, member in enumerate(files)
    ]
    return RaggedColumn(PurePosixPath(folder).name, arrays)


def check_members(archive: zipfile.ZipFile, file_bytes: int, limits: Limits) -> list[zipfile.ZipInfo]:
    """The archive's files, held against the limits by what its directory declares.

    Raises:
        InvalidDataset: too many files, or too many bytes.
    """
    members = [member for member in archive.infolist() if not member.is_dir()]
    if len(members) > limits.members:
        raise InvalidDataset(f"the archive holds {len(members):,} files, {limits.members:,} are allowed")
    limits.check_opened_size((member.file_size for member in members), file_bytes)
    return members
