"""One .npy member of an archive: its header is checked first, then it is copied out and memory-mapped."""

import shutil
import zipfile
from math import prod
from pathlib import Path
from typing import IO, Literal

import numpy as np

from compression.data.columns import check_kind
from compression.errors import InvalidDataset

CHUNK_BYTES = 1 << 20


def check_header(stream: IO[bytes], name: str, size_bytes: int) -> None:
    """Holds what the header promises against the bytes that are there.

    Raises:
        InvalidDataset: no .npy file, elements of a refused kind, or a promise of more or fewer bytes.
    """
    try:
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0), (3, 0)):
            raise ValueError(f"version {version}")
        formats = np.lib.format
        read = formats.read_array_header_1_0 if version == (1, 0) else formats.read_array_header_2_0
        shape, _, dtype = read(stream)
    except (ValueError, EOFError, zipfile.BadZipFile, TypeError) as error:
        reason = str(error).partition(": <")[0]  # numpy names the object that it could not parse
        raise InvalidDataset(f"{name!r} is no .npy array: {reason}", where=name) from error
    check_kind(name, dtype)
    promised = prod(shape) * dtype.itemsize
    present = size_bytes - stream.tell()
    if promised != present or min(shape, default=0) < 0:
        raise InvalidDataset(
            f"the header of {name!r} promises {promised:,} bytes ({list(shape)} of {dtype}), "
            f"the file holds {present:,}",
            where=name,
        )


def extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, name: str) -> np.ndarray:
    """Copies a member out in small pieces and maps it into memory, read-only.

    Raises:
        InvalidDataset: the header lies, or the member's checksum does not match.
    """
    if member.flag_bits & 1:
        raise InvalidDataset(f"{name!r} is encrypted", where=name)
    try:
        with archive.open(member) as stream:
            check_header(stream, name, member.file_size)
        with archive.open(member) as stream, target.open("xb") as out:
            shutil.copyfileobj(stream, out, CHUNK_BYTES)
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise InvalidDataset(f"{name!r} is broken: {error}", where=name) from error
    return map_file(target)


def map_file(path: Path) -> np.ndarray:
    """The array in a .npy file, memory-mapped; a small one is read, since an empty file cannot be mapped."""
    mode: Literal["r"] | None = None if path.stat().st_size < CHUNK_BYTES else "r"
    array: np.ndarray = np.load(path, mmap_mode=mode, allow_pickle=False)
    return array
