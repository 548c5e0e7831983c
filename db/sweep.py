"""Removes stored bytes that no row names, left by crashes between storing and recording."""

from datetime import timedelta

from db.blobs import delete_unless_recorded, object_key, release_blobs, unreferenced
from db.clock import utcnow
from db.models import Blob
from db.session import Database
from db.storage import ObjectInfo, ObjectStore

DAY_S = 24 * 3600


def sweep_orphans(database: Database, store: ObjectStore, older_than_s: float = DAY_S) -> int:
    """Deletes objects without a row, and rows nothing refers to; returns how many objects went.

    Only objects older than `older_than_s` are looked at: younger ones may just be waiting for their row.
    """
    with database.transaction() as s:
        for project_id, sha256 in unreferenced(s):
            release_blobs(s, store, project_id, [sha256])
    store.sweep_incoming(older_than_s)
    before = utcnow() - timedelta(seconds=older_than_s)
    old = (found for found in store.list("projects/") if found.modified_at <= before)
    return sum(_sweep(database, store, found) for found in old)


def _sweep(database: Database, store: ObjectStore, found: ObjectInfo) -> bool:
    """What is no object of ours, by its key, is left alone."""
    project_id, sha256 = found.key.split("/")[1], found.key.rpartition("/")[2]
    if found.key != object_key(project_id, sha256):
        return False
    with database.read() as s:
        if s.get(Blob, (project_id, sha256)) is not None:
            return False
    return delete_unless_recorded(database, store, project_id, sha256)
