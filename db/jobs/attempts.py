"""A worker's attempt at a job: it begins with a claim, whose token every later write carries."""

import secrets
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import func, or_, update
from sqlalchemy.orm import Session

from db.artifacts import NewArtifact, add_artifacts
from db.clock import utcnow
from db.jobs._moves import changed_one, finish, hold, move, ran_until, requeue
from db.jobs.queries import find_job
from db.models import HELD_STATES, Job, JobState
from db.projects import lock_project, running_jobs
from db.storage import ObjectStore


class NotClaimed(StrEnum):
    """Why `claim` gave no job."""

    MISSING = "missing"
    """No job has this id."""
    NOT_QUEUED = "not_queued"
    """Another worker has it, or it is over: the message was a late or second one."""
    PROJECT_BUSY = "project_busy"
    """The project runs as many jobs as it may. `next_waiting` finds the job when one of them ends."""
    POISON = "poison"
    """Its attempts were used up; it has just been failed."""


def claim(
    s: Session, job_id: str, *, worker: str, lease_s: float, max_attempts: int, now: datetime | None = None
) -> Job | NotClaimed:
    """Takes a queued job: attempt + 1, a new `token`, a lease until `now` + `lease_s` seconds.

    Exactly one of many claimers gets it: the UPDATE is conditional on `queued`. The project's
    `max_running_jobs` holds exactly too, because claims of one project queue up at its locked row (on SQLite
    at the write lock) and nothing else makes a job running; so the count cannot grow between being read and
    being acted on.
    """
    now = now or utcnow()
    job = find_job(s, job_id)
    if job is None or job.state is not JobState.QUEUED:
        return NotClaimed.MISSING if job is None else NotClaimed.NOT_QUEUED
    if job.attempt >= max_attempts:
        return NotClaimed.POISON if fail_poison(s, job, [JobState.QUEUED], now) else NotClaimed.NOT_QUEUED
    project = lock_project(s, job.project_id)
    if running_jobs(s, project.id) >= project.max_running_jobs:
        _say_busy(s, job_id, project.max_running_jobs)
        return NotClaimed.PROJECT_BUSY
    values = {
        "attempt": Job.attempt + 1,
        "token": secrets.token_hex(16),
        "worker": worker,
        "lease_expires_at": now + timedelta(seconds=lease_s),
        "started_at": func.coalesce(Job.started_at, now),
        "claimed_at": now,
        "message": "",
    }
    event = {"attempt": job.attempt + 1, "worker": worker}
    claimed = move(s, job_id, [JobState.QUEUED], JobState.RUNNING, values=values, event=event)
    return NotClaimed.NOT_QUEUED if claimed is None else claimed


def time_left_s(job: Job, now: datetime | None = None) -> float:
    """Seconds that a running job may still run; zero or less means that it is over its `time_limit_s`."""
    return job.time_limit_s - ran_until(job, now or utcnow())


def heartbeat(
    s: Session, job_id: str, token: str, lease_s: float, now: datetime | None = None
) -> JobState | None:
    """Prolongs the lease; returns `running`, `cancelling` when the job is to stop, None when it was lost."""
    lease = (now or utcnow()) + timedelta(seconds=lease_s)
    held = update(Job).where(Job.id == job_id, Job.token == token, Job.state.in_(HELD_STATES))
    return s.scalars(held.values(lease_expires_at=lease).returning(Job.state)).one_or_none()


def keep_artifacts(
    s: Session, store: ObjectStore, job_id: str, token: str, artifacts: Iterable[NewArtifact]
) -> bool:
    """Adds artifacts while the job is held: what a failing job's finished steps made. False: stale."""
    job = find_job(s, job_id)
    if job is None or not hold(s, job_id, token):
        return False
    add_artifacts(s, store, job, artifacts)
    return True


def succeed(
    s: Session,
    store: ObjectStore,
    job_id: str,
    token: str,
    *,
    measurements: Mapping[str, Any],
    artifacts: Iterable[NewArtifact],
    now: datetime | None = None,
) -> bool:
    """Keeps the results, all or nothing; the artifacts' bytes are already stored.

    False: nothing was kept, for the attempt is stale, or a cancel came first, which is then fulfilled.
    """
    now = now or utcnow()
    values = {"measurements": dict(measurements), "fraction": 1.0}
    job = finish(s, job_id, [JobState.RUNNING], JobState.SUCCEEDED, now, token=token, values=values)
    if job is None:
        finish(s, job_id, [JobState.CANCELLING], JobState.CANCELLED, now, token=token)
        return False
    add_artifacts(s, store, job, artifacts)
    s.refresh(job, ["steps", "artifacts"])
    return True


def fail(s: Session, job_id: str, token: str, error: Mapping[str, Any], now: datetime | None = None) -> bool:
    """Ends the job with `error`: `code`, `message`, `where`, `hint`, `retryable`. False: stale."""
    values = {"error": dict(error)}
    event = {"error": dict(error)}
    now = now or utcnow()
    return (
        finish(s, job_id, HELD_STATES, JobState.FAILED, now, token=token, values=values, event=event)
        is not None
    )


def cancelled(s: Session, job_id: str, token: str, now: datetime | None = None) -> bool:
    """Says that the work has stopped as asked. False: stale."""
    return finish(s, job_id, HELD_STATES, JobState.CANCELLED, now or utcnow(), token=token) is not None


def release(s: Session, job_id: str, token: str, now: datetime | None = None) -> bool:
    """The worker shuts down: the job is queued again and the attempt not counted. False: stale."""
    now = now or utcnow()
    job = find_job(s, job_id)
    if job is None or job.token != token:
        return False
    reason = "The worker shut down; the job goes on from its last finished step or checkpoint."
    ran_s = ran_until(job, now)
    if requeue(s, job, now, attempt=job.attempt - 1, ran_s=ran_s, guard=Job.token == token, reason=reason):
        return True
    return finish(s, job_id, [JobState.CANCELLING], JobState.CANCELLED, now, token=token) is not None


def fail_poison(s: Session, job: Job, sources: Iterable[JobState], now: datetime) -> bool:
    """Fails a job that ended `attempt` workers without a word; false if it has changed since it was read."""
    error = {
        "code": "poison",
        "message": f"The job was started {job.attempt} times; its worker each time ended without a result.",
        "where": None,
        "hint": "It probably needs more memory than the worker has. Use a smaller model or less data.",
        "retryable": False,
    }
    same = (Job.attempt == job.attempt) & (Job.lease_expires_at.is_not_distinct_from(job.lease_expires_at))
    values, event = {"error": error}, {"error": error}
    return (
        finish(s, job.id, sources, JobState.FAILED, now, guard=same, values=values, event=event) is not None
    )


def _say_busy(s: Session, job_id: str, limit: int) -> None:
    message = f"Waiting: the project already runs {limit} jobs, as many as it may."
    news = or_(Job.message != message, Job.rung_at.is_not(None))
    queued = update(Job).where(Job.id == job_id, Job.state == JobState.QUEUED, news)
    # Its message is used up, so that the sweeper rings as soon as the project may run more.
    changed_one(s, queued.values(message=message, rung_at=None))
