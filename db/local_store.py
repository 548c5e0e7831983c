"""Objects as files in a folder of this machine."""

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from db.errors import ObjectMissing, StorageError, StorageUnavailable
from db.incoming import IncomingObject
from db.storage import CHUNK_BYTES, ObjectInfo, ObjectStore, checked_key

_INCOMING = ".incoming"  # No key starts with a dot.


class LocalStore(ObjectStore):
    """A file is written under another name, flushed to the disk, and renamed into place."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._incoming = self._root / _INCOMING

    def put(self, key: str, source: Path) -> None:
        with _translated(key), source.open("rb") as reader:
            self._incoming.mkdir(parents=True, exist_ok=True)
            draft = self._incoming / uuid.uuid4().hex
            try:
                _copy(reader, draft)
                self._settle(key, draft)
            finally:
                draft.unlink(missing_ok=True)

    def get(self, key: str, target: Path) -> None:
        with _translated(key), self._path(key).open("rb") as reader:
            draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
            try:
                with draft.open("xb") as writer:
                    shutil.copyfileobj(reader, writer, CHUNK_BYTES)
                draft.replace(target)
            finally:
                draft.unlink(missing_ok=True)

    def open_range(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        with _translated(key):
            reader = self._path(key).open("rb")
        return _chunks(reader, start, stop)

    def size(self, key: str) -> int:
        with _translated(key):
            return self._path(key).stat().st_size

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def delete(self, key: str) -> None:
        with _translated(key), contextlib.suppress(FileNotFoundError):
            self._path(key).unlink()

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        for folder, folders, files in os.walk(self._root):
            folders[:] = [name for name in folders if name != _INCOMING]
            for name in files:
                path = Path(folder) / name
                key = path.relative_to(self._root).as_posix()
                with contextlib.suppress(FileNotFoundError):
                    if key.startswith(prefix):
                        yield _info(key, path.stat())

    def presign(self, key: str, filename: str, seconds: int) -> str | None:
        return None

    def begin(self) -> IncomingObject:
        return IncomingObject(self._incoming, self._settle)

    def sweep_incoming(self, older_than_s: float) -> int:
        return sweep_folder(self._incoming, older_than_s)

    def check(self) -> None:
        probe = self._incoming / uuid.uuid4().hex
        try:
            self._incoming.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"ready")
            probe.unlink()
        except OSError as error:
            raise StorageUnavailable(f"The object folder cannot be written: {error.strerror}") from error

    def _path(self, key: str) -> Path:
        return self._root / checked_key(key)

    def _settle(self, key: str, draft: Path) -> None:
        """Renames a complete file into place; the folders' entries are flushed too."""
        path = self._path(key)
        made = _make_folders(path.parent)
        os.utime(draft)
        draft.replace(path)
        for folder in (path.parent, *made):
            _flush_folder(folder)


def sweep_folder(folder: Path, older_than_s: float) -> int:
    """Removes the files in `folder` that were last written so long ago; returns how many."""
    removed = 0
    for path in folder.iterdir() if folder.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime <= time.time() - older_than_s:
                path.unlink()
                removed += 1
    return removed


def _copy(reader: BinaryIO, target: Path) -> None:
    with target.open("xb") as writer:
        shutil.copyfileobj(reader, writer, CHUNK_BYTES)
        writer.flush()
        os.fsync(writer.fileno())


def _chunks(reader: BinaryIO, start: int, stop: int | None) -> Iterator[bytes]:
    with reader:
        reader.seek(start)
        left = None if stop is None else stop - start
        while left is None or left > 0:
            chunk = reader.read(CHUNK_BYTES if left is None else min(CHUNK_BYTES, left))
            if not chunk:
                return
            left = None if left is None else left - len(chunk)
            yield chunk


def _info(key: str, stat: os.stat_result) -> ObjectInfo:
    return ObjectInfo(
        key=key, size_bytes=stat.st_size, modified_at=datetime.fromtimestamp(stat.st_mtime, UTC)
    )


def _make_folders(folder: Path) -> tuple[Path, ...]:
    """Makes `folder` and returns the folders in which a new entry was made, the deepest first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return tuple(path.parent for path in missing)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _translated(key: str) -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise
    except FileNotFoundError as error:
        raise ObjectMissing(f"There is no object {key}") from error
    except OSError as error:
        raise StorageUnavailable(f"The object {key} cannot be reached: {error.strerror}") from error
