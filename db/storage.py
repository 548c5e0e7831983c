"""The object store's contract: immutable bytes under keys, whatever holds them."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

from db.errors import InvalidKey
from db.incoming import IncomingObject
from db.settings import Settings

_SEGMENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class ObjectInfo:
    key: str
    size_bytes: int
    modified_at: datetime


class ObjectStore(ABC):
    """Bytes under keys such as `projects/prj_.../ab/abcd...`.

    An object appears whole or not at all, and once `put` or `IncomingObject.commit` returns it survives a
    crash. Putting a key again replaces the object; keys carry the bytes' hash, so the bytes are the same.
    Every method is thread-safe, blocks, holds a bounded amount of memory, and raises `StorageError` or one of
    its subclasses.
    """

    @abstractmethod
    def put(self, key: str, source: Path) -> None:
        """Stores a copy of the file `source`."""

    @abstractmethod
    def get(self, key: str, target: Path) -> None:
        """Writes the object to the file `target`, which appears only complete. Raises `ObjectMissing`."""

    @abstractmethod
    def open_range(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` up to but not including `stop` (None: the end), in chunks of at most 1 MiB.

        `ObjectMissing` is raised by the call itself, not by the first chunk. Exhaust or close the iterator.
        """

    @abstractmethod
    def size(self, key: str) -> int:
        """In bytes. Raises `ObjectMissing`."""

    @abstractmethod
    def exists(self, key: str) -> bool: ...

    @abstractmethod
    def delete(self, key: str) -> None:
        """Removes the object; one that is not there is no error."""

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Every object whose key starts with `prefix`, in no promised order."""

    @abstractmethod
    def presign(self, key: str, filename: str, seconds: int) -> str | None:
        """A URL for clients to download the object as `filename`; None: it must go through the API."""

    @abstractmethod
    def begin(self) -> IncomingObject:
        """Starts an object whose key, made from its hash, is known only when its last byte has come."""

    @abstractmethod
    def sweep_incoming(self, older_than_s: float) -> int:
        """Removes what uploads that died left behind; returns how many."""

    @abstractmethod
    def check(self) -> None:
        """Raises `StorageUnavailable` unless objects can be stored right now."""

    def prepare(self) -> None:  # noqa: B027
        """Makes the place objects go to, where it is not there yet; part of the migration."""

    def close(self) -> None:  # noqa: B027
        """Closes connections."""


def open_store(settings: Settings) -> ObjectStore:
    """The store that `settings.storage_url` names: `file:///folder` or `s3://bucket/prefix`."""
    url = urlsplit(settings.storage_url)
    if url.scheme == "file":
        from db.local_store import LocalStore

        return LocalStore(Path(unquote(url.path)))
    if url.scheme == "s3":
        from db.s3_store import S3Store

        return S3Store(settings, bucket=url.netloc, prefix=url.path.strip("/"))
    raise ValueError(f"MODELPRESS_STORAGE_URL must start with file:// or s3://, not {settings.storage_url!r}")


def checked_key(key: str) -> str:
    """`key`, if it is one; so no key ever names something outside the store. Raises `InvalidKey`."""
    if len(key) > 512 or not all(_SEGMENT.fullmatch(segment) for segment in key.split("/")):
        raise InvalidKey(f"{key!r} is not an object key")
    return key
