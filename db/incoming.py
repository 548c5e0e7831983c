"""An object on its way in: hashed while its bytes are written to a local file, stored when complete.

The key of an object is made from its hash, which is known only at the end. So the bytes wait in a file beside
the store (local files: renamed into place) or on the local disk (S3: sent in parts at commit). The other way
on S3, a multipart upload to a temporary key and a server-side copy, was not taken: the copy reads and writes
everything once more on the server, needs parts itself beyond 5 GB, and a dead process leaves paid-for parts
that only a bucket rule removes. The price is local disk space for the uploads in progress.
"""

import contextlib
import hashlib
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from db.errors import StorageUnavailable


class IncomingObject:
    """Write chunks, then `commit(key)` or `abort()`; leaving a `with` block without a commit aborts.

    Memory stays bounded by the chunks given. Calls block on disk and hashing (both release the GIL) and must
    not overlap, but may come from different threads, so an async caller awaits each one in a thread pool.
    """

    def __init__(self, folder: Path, store: Callable[[str, Path], None]) -> None:
        """`store(key, path)` puts the complete file in place; it may move the file."""
        self._path = folder / uuid.uuid4().hex
        self._store = store
        self._hash = hashlib.sha256()
        self._open = True
        self.size_bytes = 0
        with _translated():
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("xb", buffering=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    @property
    def sha256(self) -> str:
        """Of the bytes written so far, in lower-case hexadecimal."""
        return self._hash.hexdigest()

    def write(self, chunk: bytes) -> None:
        """Appends. Raises `StorageUnavailable` when the disk is full."""
        rest = memoryview(chunk)
        self._hash.update(rest)
        self.size_bytes += len(rest)
        with _translated():
            while rest:
                rest = rest[self._file.write(rest) :]

    def commit(self, key: str) -> None:
        """Makes the bytes a durable object under `key`. Afterwards there is nothing left to abort."""
        with _translated():
            os.fsync(self._file.fileno())
            self._file.close()
            self._store(key, self._path)
        self.abort()

    def abort(self) -> None:
        """Drops the bytes; without effect after a commit or a first abort."""
        if self._open:
            self._open = False
            self._file.close()
            self._path.unlink(missing_ok=True)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageUnavailable(f"The upload could not be written: {error.strerror}") from error
