"""Which bytes a project has, one row for each object, and the end of those that nothing refers to.

The order that keeps rows and objects together; each transaction locks the blob (project and hash):
1. Bytes are stored first; then `add_blob` makes the row, within the transaction that makes what refers to it,
   and looks under the lock that the object is there. So no row names bytes that are missing.
2. `release_blobs` drops the row of a blob that nothing refers to any more. After that commit, and under the
   lock again, the object is deleted if there is still no row.
A crash between storing and 1, or within 2, leaves an object without a row: harmless, and swept by `db.sweep`.
"""

from collections.abc import Iterable
from functools import partial

from sqlalchemy import ColumnElement, delete, exists, select
from sqlalchemy.orm import Session

from db.clock import utcnow
from db.errors import ObjectMissing
from db.models import Artifact, Asset, AssetState, Blob, JobCheckpoint, StepResultFile
from db.session import Database, after_commit, database_of, lock
from db.storage import ObjectStore


def object_key(project_id: str, sha256: str) -> str:
    """Where the object store keeps the bytes of a project with this hash."""
    return f"projects/{project_id}/{sha256[:2]}/{sha256}"


def add_blob(s: Session, store: ObjectStore, project_id: str, sha256: str, size_bytes: int) -> None:
    """Records stored bytes once. Raises `ObjectMissing` if they are gone: store them again and repeat.

    Add several in the order of their hashes, or two transactions could wait for each other.
    """
    _lock(s, project_id, sha256)
    if not store.exists(object_key(project_id, sha256)):
        raise ObjectMissing(f"The bytes {sha256} are not stored")
    if s.get(Blob, (project_id, sha256)) is None:
        s.add(Blob(project_id=project_id, sha256=sha256, size_bytes=size_bytes, created_at=utcnow()))
        s.flush()


def release_blobs(s: Session, store: ObjectStore, project_id: str, hashes: Iterable[str]) -> None:
    """Gives up those of the blobs that nothing refers to; their objects are deleted after the commit."""
    s.flush()
    for sha256 in sorted(set(hashes)):
        _lock(s, project_id, sha256)
        unused = delete(Blob).where(Blob.project_id == project_id, Blob.sha256 == sha256, ~is_referenced())
        if s.connection().execute(unused).rowcount:
            after_commit(s, partial(delete_unless_recorded, database_of(s), store, project_id, sha256))


def delete_unless_recorded(database: Database, store: ObjectStore, project_id: str, sha256: str) -> bool:
    """Deletes the object if no row names it; the lock keeps a new row from appearing meanwhile."""
    with database.transaction() as s:
        _lock(s, project_id, sha256)
        if s.get(Blob, (project_id, sha256)) is not None:
            return False
        store.delete(object_key(project_id, sha256))
        return True


def is_referenced() -> ColumnElement[bool]:
    """Whether an asset, an artifact, a kept step result or a checkpoint refers to the enclosing query's blob."""
    kept_step = exists().where(
        StepResultFile.project_id == Blob.project_id, StepResultFile.sha256 == Blob.sha256
    )
    checkpoint = exists().where(
        JobCheckpoint.project_id == Blob.project_id, JobCheckpoint.sha256 == Blob.sha256
    )
    return is_counted() | kept_step | checkpoint


def is_counted() -> ColumnElement[bool]:
    """Whether the enclosing query's blob counts towards the quota: what only saves time is free of charge."""
    asset = exists().where(
        Asset.project_id == Blob.project_id,
        (Asset.sha256 == Blob.sha256) | (Asset.converted_sha256 == Blob.sha256),
        Asset.deleted_at.is_(None),
        Asset.state != AssetState.REFUSED,
    )
    artifact = exists().where(Artifact.project_id == Blob.project_id, Artifact.sha256 == Blob.sha256)
    return asset | artifact


def unreferenced(s: Session, limit: int = 1000) -> list[tuple[str, str]]:
    """(project id, hash) of recorded blobs that nothing refers to."""
    found = s.execute(select(Blob.project_id, Blob.sha256).where(~is_referenced()).limit(limit))
    return [(project_id, sha256) for project_id, sha256 in found]


def _lock(s: Session, project_id: str, sha256: str) -> None:
    lock(s, f"blob {project_id} {sha256}")
