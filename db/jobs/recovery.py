"""What the sweeper does: jobs that wait for a lost message, and jobs whose worker died."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Select, func, or_, select, update
from sqlalchemy.orm import Session

from db.clock import utcnow
from db.jobs._moves import finish, ran_until, requeue
from db.jobs.attempts import fail_poison
from db.models import HELD_STATES, Job, JobState, Project
from db.settings import Settings

_JUST_COMMITTED_S = 2.0
"""A job so young was most likely committed a moment ago and is being rung for right now."""


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A queued job to ring for: `Bell.ring_job(job_id, queue)`."""

    job_id: str
    queue: str


def lost(
    s: Session, now: datetime, settings: Settings, *, backlogged: Collection[str] = (), limit: int = 100
) -> list[Waiting]:
    """Takes care of what nobody else will, and returns the queued jobs to ring for after the commit.

    1. Queued for longer than `queue_limit_s`: expired.
    2. Held under a lease that ended before `now`: cancelling becomes cancelled; running goes back to the
       queue with its attempts and finished steps kept, or fails when attempts (`poison`) or time
       (`time_limit`) are used up.
    3. Queued and never rung for, or last rung for more than `ring_again_s` ago: returned, the oldest first,
       at most `limit`; without those whose project runs as many jobs as it may. Where the queue is one of
       `backlogged`, of which the broker still holds messages, the job's own is most likely among them, and
       `patience_s` is what counts: another message for every waiting job would only lengthen the queue.

    Several sweepers at once do no harm: changes are conditional, and a second message finds nothing to claim.
    """
    _expire(s, now, settings.queue_limit_s, limit)
    _take_back(s, now, settings.max_attempts, limit)
    return _unheard(s, now, settings, backlogged, limit)


def next_waiting(s: Session, project_id: str) -> list[Waiting]:
    """The project's oldest queued job on each queue: ring for them when a job of a busy project has ended."""
    oldest = select(func.min(Job.id)).where(Job.project_id == project_id, Job.state == JobState.QUEUED)
    found = select(Job.id, Job.queue).where(Job.id.in_(oldest.group_by(Job.queue)))
    return [Waiting(job_id=job_id, queue=queue) for job_id, queue in s.execute(found)]


def mark_rung(s: Session, job_id: str) -> None:
    """Notes that a worker was woken for the job just now."""
    s.execute(update(Job).where(Job.id == job_id).values(rung_at=utcnow()))


def _expire(s: Session, now: datetime, queue_limit_s: float, limit: int) -> None:
    since = now - timedelta(seconds=queue_limit_s)
    error = {
        "code": "queue_limit",
        "message": f"The job waited longer than {queue_limit_s:.0f} seconds for a worker.",
        "where": None,
        "hint": "Check that a worker for its queue is running, then retry the job.",
        "retryable": True,
    }
    waited = (
        select(Job.id)
        .where(Job.state == JobState.QUEUED, Job.queued_at < since)
        .order_by(Job.id)
        .limit(limit)
    )
    values, event = {"error": error}, {"error": error}
    for job_id in s.scalars(waited).all():
        guard = Job.queued_at < since
        finish(s, job_id, [JobState.QUEUED], JobState.EXPIRED, now, guard=guard, values=values, event=event)


def _take_back(s: Session, now: datetime, max_attempts: int, limit: int) -> None:
    dead = (
        select(Job)
        .where(Job.state.in_(HELD_STATES), Job.lease_expires_at < now)
        .order_by(Job.id)
        .limit(limit)
    )
    for job in s.scalars(dead, execution_options={"populate_existing": True}).all():
        _take_back_one(s, job, now, max_attempts)


def _take_back_one(s: Session, job: Job, now: datetime, max_attempts: int) -> None:
    """The guard asks again whether the lease is dead, for a late heartbeat may have prolonged it."""
    dead = (Job.lease_expires_at < now) & (Job.token == job.token)
    ran_s = ran_until(job, min(now, job.lease_expires_at or now))
    if job.state is JobState.CANCELLING:
        finish(s, job.id, [JobState.CANCELLING], JobState.CANCELLED, now, guard=dead)
    elif job.attempt >= max_attempts:
        fail_poison(s, job, [JobState.RUNNING], now)
    elif ran_s >= job.time_limit_s:
        _fail_time_limit(s, job, now)
    else:
        reason = "Its worker was lost; the job goes on from its last finished step or checkpoint."
        requeue(s, job, now, attempt=job.attempt, ran_s=ran_s, guard=dead, reason=reason)


def _fail_time_limit(s: Session, job: Job, now: datetime) -> None:
    error = {
        "code": "time_limit",
        "message": f"The job ran longer than its limit of {job.time_limit_s:.0f} seconds.",
        "where": None,
        "hint": "Submit it again with a higher time limit.",
        "retryable": False,
    }
    dead = (Job.lease_expires_at < now) & (Job.token == job.token)
    values, event = {"error": error}, {"error": error}
    finish(s, job.id, [JobState.RUNNING], JobState.FAILED, now, guard=dead, values=values, event=event)


def _unheard(
    s: Session, now: datetime, settings: Settings, backlogged: Collection[str], limit: int
) -> list[Waiting]:
    never = Job.rung_at.is_(None) & (Job.queued_at < now - timedelta(seconds=_JUST_COMMITTED_S))
    put_back = Job.rung_at.is_(None) & (Job.attempt > 0)
    again = (Job.rung_at < now - timedelta(seconds=settings.ring_again_s)) & Job.queue.not_in(backlogged)
    long_ago = Job.rung_at < now - timedelta(seconds=settings.patience_s)
    unheard = or_(never, put_back, again, long_ago)
    silent = select(Job.id, Job.queue).where(Job.state == JobState.QUEUED, unheard)
    free = silent.where(Job.project_id.not_in(_busy_projects()))
    return [Waiting(job_id=id, queue=queue) for id, queue in s.execute(free.order_by(Job.id).limit(limit))]


def _busy_projects() -> Select[str]:
    held = (
        select(func.count()).select_from(Job).where(Job.project_id == Project.id, Job.state.in_(HELD_STATES))
    )
    return select(Project.id).where(held.scalar_subquery() >= Project.max_running_jobs)
