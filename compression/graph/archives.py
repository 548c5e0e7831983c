"""Unpacks an archive with one ONNX file and its external data, writing nothing outside its folder."""

import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from compression.errors import InvalidModel
from compression.graph.detect import refuse_foreign_zip
from compression.graph.limits import (
    FREE_UNPACKED_BYTES,
    MAX_ARCHIVE_MEMBERS,
    MAX_UNPACK_RATIO,
    MAX_UNPACKED_BYTES,
)

CHUNK_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class _Member:
    name: str
    size: int
    open: Callable[[], AbstractContextManager[IO[bytes]]]


def is_archive(path: Path) -> bool:
    return zipfile.is_zipfile(path) or _is_tar(path)


def unpack(path: Path, folder: Path) -> Path:
    """Unpacks into an empty or new folder and returns the one .onnx file.

    Raises:
        InvalidModel: the archive is damaged, names places outside, holds links, or opens to far too much.
        UnsupportedModel: it is an archive of another kind.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                refuse_foreign_zip(archive)
                return _unpack(list(_zip_members(archive)), path, folder)
        with tarfile.open(path, "r:*") as tar:
            return _unpack(list(_tar_members(tar)), path, folder)
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        EOFError,
        RuntimeError,
        OSError,
        NotImplementedError,
    ) as error:
        raise InvalidModel(f"the archive cannot be unpacked: {error}") from error
    except (zlib.error, lzma.LZMAError) as error:
        raise InvalidModel(f"the archive is damaged: {error}") from error


def _is_tar(path: Path) -> bool:
    try:
        return tarfile.is_tarfile(path)
    except (OSError, EOFError, ValueError):
        return False


def _zip_members(archive: zipfile.ZipFile) -> Iterator[_Member]:
    for info in archive.infolist():
        kind = info.external_attr >> 28
        if info.is_dir():
            continue
        if kind not in (0, 8):
            raise InvalidModel("the archive holds a link or a device", where=info.filename)
        yield _Member(name=info.filename, size=info.file_size, open=partial(archive.open, info))


def _tar_members(archive: tarfile.TarFile) -> Iterator[_Member]:
    for count, info in enumerate(archive):
        if count > MAX_ARCHIVE_MEMBERS:
            raise InvalidModel(f"the archive holds more than {MAX_ARCHIVE_MEMBERS} files")
        if info.isdir():
            continue
        if not info.isreg():
            raise InvalidModel("the archive holds a link or a device", where=info.name)
        yield _Member(name=info.name, size=info.size, open=partial(_opened, archive, info))


def _opened(archive: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    file = archive.extractfile(info)
    if file is None:
        raise InvalidModel("the archive holds something that is no file", where=info.name)
    return file


def _unpack(members: list[_Member], source: Path, folder: Path) -> Path:
    members = [member for member in members if not _is_noise(member.name)]
    _check_sizes(members, source.stat().st_size)
    models = [member for member in members if member.name.lower().endswith(".onnx")]
    if len(models) != 1:
        names = ", ".join(member.name for member in models[:5]) or "none"
        raise InvalidModel(
            f"an archive must hold exactly one .onnx file; this one holds {len(models)} ({names})",
            hint="pack the .onnx file together with its external data files only",
        )
    folder.mkdir(parents=True, exist_ok=True)
    for member in members:
        _write(member, _target(member.name, folder))
    return _target(models[0].name, folder)


def _is_noise(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return "__MACOSX" in parts or (bool(parts) and parts[-1] in (".DS_Store", "Thumbs.db"))


def _check_sizes(members: list[_Member], packed: int) -> None:
    total = sum(member.size for member in members)
    if len(members) > MAX_ARCHIVE_MEMBERS:
        raise InvalidModel(f"the archive holds more than {MAX_ARCHIVE_MEMBERS} files")
    if total > MAX_UNPACKED_BYTES or (total > FREE_UNPACKED_BYTES and total > packed * MAX_UNPACK_RATIO):
        raise InvalidModel(f"the archive of {packed} bytes would open to {total} bytes")


def _target(name: str, folder: Path) -> Path:
    parts = PurePosixPath(name).parts
    if (
        not parts
        or name.startswith("/")
        or ".." in parts
        or "\\" in name
        or "\x00" in name
        or ":" in parts[0]
    ):
        raise InvalidModel("the archive names a place outside its folder", where=name)
    return folder.joinpath(*parts)


def _write(member: _Member, target: Path) -> None:
    """Writes one member; what it really holds must be what it declares."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        raise InvalidModel("the archive holds two files of one name", where=member.name)
    left = member.size
    with member.open() as source, target.open("xb") as file:
        while chunk := source.read(CHUNK_BYTES):
            left -= len(chunk)
            if left < 0:
                raise InvalidModel("a file in the archive is larger than it declares", where=member.name)
            file.write(chunk)
    if left:
        raise InvalidModel("a file in the archive is shorter than it declares", where=member.name)
