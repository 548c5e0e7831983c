"""Reads files that a child made.

The child may still run and may mean harm, so nothing about a path is believed.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from db.blobs import object_key
from db.storage import ObjectStore
from worker.failures import OutputGone, bad_output

_CHUNK_BYTES = 1 << 20
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """A file whose bytes are in the object store now."""

    name: str
    sha256: str
    size_bytes: int


def store_file(store: ObjectStore, project_id: str, folder: Path, path: str, *, max_bytes: int) -> StoredFile:
    """Copies a child's file into the store, hashed on the way, so that what is named is what was read.

    Raises `Failed` if it is not a plain file of that folder alone, and `StorageError`.
    """
    with open_plain(folder, path) as reader, store.begin() as incoming:
        while chunk := reader.read(_CHUNK_BYTES):
            if incoming.size_bytes + len(chunk) > max_bytes:
                raise bad_output(path, f"it is larger than {max_bytes} bytes")
            incoming.write(chunk)
        sha256, size_bytes = incoming.sha256, incoming.size_bytes
        key = object_key(project_id, sha256)
        if not store.exists(key):
            incoming.commit(key)
    return StoredFile(name=PurePosixPath(path).name, sha256=sha256, size_bytes=size_bytes)


@contextmanager
def open_plain(folder: Path, path: str) -> Iterator[BinaryIO]:
    """Opens `path`, relative to `folder`, following no link at any depth.

    Hard links and devices are refused.
    """
    parts = PurePosixPath(path).parts
    if not parts or PurePosixPath(path).is_absolute() or ".." in parts or "\0" in path:
        raise bad_output(path, "its path leaves the job's folder")
    descriptor = os.open(folder, _FOLDER_FLAGS)
    try:
        for part in parts[:-1]:
            descriptor = _step(descriptor, part, _FOLDER_FLAGS, path)
        descriptor = _step(descriptor, parts[-1], _FILE_FLAGS, path)
        _check(os.fstat(descriptor), path)
        with os.fdopen(descriptor, "rb", closefd=False) as reader:
            yield reader
    finally:
        os.close(descriptor)


def measure(folder: Path, max_entries: int) -> tuple[int, int]:
    """Bytes and entries below a folder, links not followed; counts no further than `max_entries`."""
    total = entries = 0
    waiting = [str(folder)]
    while waiting and entries <= max_entries:
        try:
            with os.scandir(waiting.pop()) as found:
                for entry in found:
                    entries += 1
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entries > max_entries:
                        break
        except OSError:  # It went while we looked.
            continue
    return total, entries


def _step(parent: int, name: str, flags: int, path: str) -> int:
    """The next descriptor on the way; `parent` is closed once it has served."""
    try:
        opened = os.open(name, flags, dir_fd=parent)
    except FileNotFoundError as error:
        raise bad_output(path, "it is not there", OutputGone) from error
    except OSError as error:
        raise bad_output(path, error.strerror or "it cannot be opened") from error
    os.close(parent)
    return opened


def _check(found: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise bad_output(path, "it is not a plain file")
    if found.st_nlink != 1:
        raise bad_output(path, "it has several names")
