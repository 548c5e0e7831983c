"""The conditional UPDATE behind every transition, and the fence behind every other write of a worker."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import ColumnElement, CursorResult, true, update
from sqlalchemy.orm import Session

from db.events import add_event
from db.models import HELD_STATES, Job, JobState, JobStep, StepState

_OPTIONS = {"populate_existing": True, "synchronize_session": False}
_UNHELD = {"token": None, "lease_expires_at": None, "eta_s": None}


def move(
    s: Session,
    job_id: str,
    sources: Iterable[JobState],
    to: JobState,
    *,
    token: str | None = None,
    guard: ColumnElement[bool] | None = None,
    values: Mapping[str, Any] | None = None,
    event: Mapping[str, Any] | None = None,
) -> Job | None:
    """Moves the job to `to` if it is in one of `sources` and, where given, has `token` and passes `guard`.

    Returns the changed job, or None if nothing was changed. `event` is added to the event's data.
    """
    held_by = true() if token is None else Job.token == token
    where = (
        (Job.id == job_id) & Job.state.in_(tuple(sources)) & held_by & (true() if guard is None else guard)
    )
    changed = update(Job).where(where).values(state=to, **(values or {})).returning(Job)
    job = s.scalars(changed, execution_options=_OPTIONS).one_or_none()
    if job is not None:
        add_event(s, job_id, "state", {"state": to, **(event or {})})
    return job


def finish(
    s: Session,
    job_id: str,
    sources: Iterable[JobState],
    to: JobState,
    now: datetime,
    *,
    token: str | None = None,
    guard: ColumnElement[bool] | None = None,
    values: Mapping[str, Any] | None = None,
    event: Mapping[str, Any] | None = None,
) -> Job | None:
    """`move` into a final state: the lease ends, and a step that was running stops."""
    ended = {**_UNHELD, "finished_at": now, "message": "", **(values or {})}
    job = move(s, job_id, sources, to, token=token, guard=guard, values=ended, event=event)
    if job is not None:
        stop_steps(s, job_id, StepState.FAILED if to is JobState.FAILED else StepState.PENDING)
    return job


def requeue(
    s: Session,
    job: Job,
    now: datetime,
    *,
    attempt: int,
    ran_s: float,
    guard: ColumnElement[bool],
    reason: str,
) -> Job | None:
    """`move` a running job back into the queue, where nobody has been rung for yet."""
    values = {
        **_UNHELD,
        "queued_at": now,
        "rung_at": None,
        "attempt": attempt,
        "ran_s": ran_s,
        "message": reason,
    }
    data = {"attempt": attempt, "reason": reason}
    token = job.token or ""
    moved = move(
        s, job.id, [JobState.RUNNING], JobState.QUEUED, token=token, guard=guard, values=values, event=data
    )
    if moved is not None:
        stop_steps(s, job.id, StepState.PENDING)
    return moved


def hold(s: Session, job_id: str, token: str, **values: Any) -> bool:
    """Writes `values` if this token still holds the job; False means stale, and nothing was written.

    The job's row is locked from here on, so what follows in the transaction is under the same fence.
    """
    held = update(Job).where(Job.id == job_id, Job.token == token, Job.state.in_(HELD_STATES))
    return changed_one(s, held.values(token=token, **values))


def changed_one(s: Session, statement: Any) -> bool:
    """Runs an UPDATE and says whether it changed a row."""
    return cast("CursorResult[Any]", s.execute(statement, execution_options=_OPTIONS)).rowcount == 1


def stop_steps(s: Session, job_id: str, state: StepState) -> None:
    """A step that was running is so no more: finished ones are left as they are."""
    running = update(JobStep).where(JobStep.job_id == job_id, JobStep.state == StepState.RUNNING)
    s.execute(running.values(state=state), execution_options=_OPTIONS)


def ran_until(job: Job, moment: datetime) -> float:
    """Seconds that all attempts have run if the present one ended at `moment`."""
    current = (moment - job.claimed_at) if job.claimed_at is not None else timedelta()
    return job.ran_s + max(0.0, current.total_seconds())
