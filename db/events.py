"""What happened to a job, in order; the row's id is the SSE event id."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.clock import utcnow
from db.models import JobEvent


def add_event(s: Session, job_id: str, type: str, data: dict[str, Any]) -> JobEvent:
    """Appends within the caller's transaction, so that a change and its event are seen together.

    Types and their data:
    - `state`: `state`, and where it says more: `attempt`, `worker`, `reason`, `error`
    - `step`: `index`, `method`, `state`, and when done: `seconds`, `cached`
    - `progress`: `step`, `fraction`, `message`, `eta_s`
    - `note`: `message`
    """
    event = JobEvent(job_id=job_id, type=type, at=utcnow(), data=data)
    s.add(event)
    s.flush()
    return event


def list_events(s: Session, job_id: str, after_id: int = 0, limit: int = 100) -> list[JobEvent]:
    """The job's events after the one with this id, the oldest first.

    A job's events are written by whoever holds its row, so their ids rise in the order of their commits.
    """
    wish = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.id > after_id)
    return list(s.scalars(wish.order_by(JobEvent.id).limit(limit)))
