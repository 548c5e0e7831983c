"""Counts over all projects, for the metrics."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.models import Asset, AssetState, Job
from db.workers import live_workers


def jobs_by_state(s: Session) -> dict[tuple[str, str], int]:
    """How many jobs there are by (queue, state)."""
    counted = select(Job.queue, Job.state, func.count()).group_by(Job.queue, Job.state)
    return {(queue, str(state)): count for queue, state, count in s.execute(counted)}


def waiting_inspections(s: Session) -> int:
    """Uploads whose inspection is not over."""
    waiting = (Asset.state == AssetState.INSPECTING) & Asset.deleted_at.is_(None)
    return s.scalars(select(func.count()).select_from(Asset).where(waiting)).one()


def live_workers_by_queue(s: Session) -> dict[str, int]:
    """How many workers reported in the last minute, by queue."""
    found: dict[str, int] = {}
    for worker in live_workers(s):
        found[worker.queue] = found.get(worker.queue, 0) + 1
    return found
