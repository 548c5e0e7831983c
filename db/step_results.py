"""The step cache: what finished steps made, by everything that determines it, bounded for each project."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from db.blobs import add_blob, release_blobs
from db.clock import utcnow
from db.models import StepResult, StepResultFile
from db.session import lock
from db.storage import ObjectStore


@dataclass(frozen=True, kw_only=True)
class StepFile:
    """A file whose bytes are already stored under `object_key(project_id, sha256)`."""

    name: str
    sha256: str
    size_bytes: int


def find_step_result(s: Session, project_id: str, key: str) -> StepResult | None:
    """With its `files` and `outcome`. Needs a writing transaction, for it notes the use.

    Its objects may be pruned before they are copied: upon `ObjectMissing` run the step.
    """
    found = s.get(StepResult, (project_id, key), populate_existing=True)
    if found is not None:
        mine = (StepResult.project_id == project_id) & (StepResult.key == key)
        s.execute(update(StepResult).where(mine).values(last_used_at=utcnow()))
    return found


def store_step_result(
    s: Session,
    store: ObjectStore,
    project_id: str,
    key: str,
    *,
    files: Iterable[StepFile],
    outcome: Mapping[str, Any],
) -> StepResult:
    """Keeps a finished step; one that is already kept under this key stays. Raises `ObjectMissing`."""
    lock(s, f"step {project_id} {key}")
    known = find_step_result(s, project_id, key)
    if known is not None:
        return known
    parts = sorted(files, key=lambda part: part.sha256)
    for part in parts:
        add_blob(s, store, project_id, part.sha256, part.size_bytes)
    now = utcnow()
    result = StepResult(
        project_id=project_id,
        key=key,
        outcome=dict(outcome),
        size_bytes=sum(part.size_bytes for part in parts),
        created_at=now,
        last_used_at=now,
        files=[
            StepResultFile(name=part.name, sha256=part.sha256, size_bytes=part.size_bytes) for part in parts
        ],
    )
    s.add(result)
    s.flush()
    return result


def prune_step_results(
    s: Session, store: ObjectStore, project_id: str, *, max_bytes: int, max_entries: int
) -> int:
    """Drops the results not used for longest until the rest is within both bounds; returns how many went.

    Bytes that nothing else refers to are deleted after the commit.
    """
    doomed = _over_bounds(s, project_id, max_bytes, max_entries)
    for result in doomed:
        s.delete(result)
    release_blobs(s, store, project_id, [part.sha256 for result in doomed for part in result.files])
    return len(doomed)


def projects_with_step_results(s: Session) -> list[str]:
    """Ids of the projects for which there is something to prune."""
    return list(s.scalars(select(StepResult.project_id).distinct()))


def _over_bounds(s: Session, project_id: str, max_bytes: int, max_entries: int) -> list[StepResult]:
    """Counted from the last used one on, so the sums are of what would stay if the cut were there."""
    newest_first = (StepResult.last_used_at.desc(), StepResult.key)
    ranked = (
        select(
            StepResult.key,
            func.row_number().over(order_by=newest_first).label("place"),
            func.sum(StepResult.size_bytes).over(order_by=newest_first).label("bytes_so_far"),
        )
        .where(StepResult.project_id == project_id)
        .subquery()
    )
    over = select(ranked.c.key).where((ranked.c.place > max_entries) | (ranked.c.bytes_so_far > max_bytes))
    doomed = select(StepResult).where(StepResult.project_id == project_id, StepResult.key.in_(over))
    return list(s.scalars(doomed.with_for_update()))
