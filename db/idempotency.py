"""Idempotency keys: the same submission sent twice makes one job."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import CursorResult, delete, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from db.clock import utcnow
from db.models import IdempotencyKey
from db.session import database_of

KEPT = timedelta(hours=24)
_ABANDONED = timedelta(minutes=5)


@dataclass(frozen=True)
class Reserved:
    """The key is new: do the work, then `complete` it (or `forget` it, if the work was refused)."""


@dataclass(frozen=True)
class Replay:
    """The same submission was done before and made this job."""

    job_id: str


@dataclass(frozen=True)
class Mismatch:
    """The key was used for another submission."""


@dataclass(frozen=True)
class InProgress:
    """The same submission is being done right now."""


def reserve(
    s: Session, project_id: str, key: str, fingerprint: str, now: datetime | None = None
) -> Reserved | Replay | Mismatch | InProgress:
    """Takes the key for a submission whose method, path and body hash to `fingerprint`.

    Reserve, submit and `complete` in one transaction and a submission that fails leaves no key behind; a
    second one that comes meanwhile then waits for it. Reserve in a transaction of its own and the second sees
    `InProgress`, for at most five minutes: a process that died does not hold a key for ever. Keys are kept
    for 24 hours.
    """
    now = now or utcnow()
    for _ in range(3):
        if _insert(s, project_id, key, fingerprint, now):
            return Reserved()
        row = s.get(IdempotencyKey, (project_id, key), populate_existing=True)
        if row is not None and not _is_over(row, now):
            return _known(row, fingerprint)
        if row is not None:
            _remove(s, row)
    return InProgress()


def complete(s: Session, project_id: str, key: str, job_id: str) -> None:
    """Ties a reserved key to the job that its submission made."""
    mine = (IdempotencyKey.project_id == project_id) & (IdempotencyKey.key == key)
    s.execute(update(IdempotencyKey).where(mine).values(job_id=job_id))


def forget(s: Session, project_id: str, key: str) -> None:
    """Frees a reserved key whose submission was refused."""
    mine = (IdempotencyKey.project_id == project_id) & (IdempotencyKey.key == key)
    s.execute(delete(IdempotencyKey).where(mine, IdempotencyKey.job_id.is_(None)))


def remove_old(s: Session, now: datetime | None = None) -> int:
    """Removes the keys that are older than 24 hours; returns how many."""
    old = delete(IdempotencyKey).where(IdempotencyKey.created_at < (now or utcnow()) - KEPT)
    return cast("CursorResult[Any]", s.execute(old)).rowcount


def _insert(s: Session, project_id: str, key: str, fingerprint: str, now: datetime) -> bool:
    insert = sqlite.insert if database_of(s).dialect == "sqlite" else postgresql.insert
    row = {"project_id": project_id, "key": key, "fingerprint": fingerprint, "created_at": now}
    made = insert(IdempotencyKey).values(**row).on_conflict_do_nothing().returning(IdempotencyKey.key)
    return s.scalar(made) is not None


def _is_over(row: IdempotencyKey, now: datetime) -> bool:
    return row.created_at < now - (KEPT if row.job_id else _ABANDONED)


def _known(row: IdempotencyKey, fingerprint: str) -> Replay | Mismatch | InProgress:
    if row.fingerprint != fingerprint:
        return Mismatch()
    return Replay(row.job_id) if row.job_id else InProgress()


def _remove(s: Session, row: IdempotencyKey) -> None:
    """Only the row that was read: a fresh one under the same key stays."""
    same = (IdempotencyKey.project_id == row.project_id) & (IdempotencyKey.key == row.key)
    s.execute(delete(IdempotencyKey).where(same, IdempotencyKey.created_at == row.created_at))
    s.expunge(row)
