"""Which worker processes are alive, by their own report."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from db.clock import utcnow
from db.models import Worker


def report_worker(
    s: Session,
    worker_id: str,
    *,
    queue: str,
    isolation: str,
    devices: Sequence[str],
    now: datetime | None = None,
) -> Worker:
    """Says that the worker is alive; each writes its own row only."""
    now = now or utcnow()
    worker = s.merge(
        Worker(
            id=worker_id, queue=queue, isolation=isolation, devices=list(devices), seen_at=now, started_at=now
        )
        if s.get(Worker, worker_id) is None
        else Worker(id=worker_id, queue=queue, isolation=isolation, devices=list(devices), seen_at=now)
    )
    s.flush()
    return worker


def live_workers(
    s: Session, queue: str | None = None, within_s: float = 60, now: datetime | None = None
) -> list[Worker]:
    """Those that reported within the last `within_s` seconds, of one queue or of all."""
    wish = select(Worker).where(Worker.seen_at >= (now or utcnow()) - timedelta(seconds=within_s))
    if queue is not None:
        wish = wish.where(Worker.queue == queue)
    return list(s.scalars(wish.order_by(Worker.id)))


def remove_worker(s: Session, worker_id: str) -> None:
    """Says that the worker has shut down."""
    s.execute(delete(Worker).where(Worker.id == worker_id))


def remove_silent(s: Session, silent_s: float = 24 * 3600) -> None:
    """Forgets workers that have not reported for so long."""
    s.execute(delete(Worker).where(Worker.seen_at < utcnow() - timedelta(seconds=silent_s)))
