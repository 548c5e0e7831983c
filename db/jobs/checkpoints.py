"""How far a running job's step is, kept while the job may still need it: one checkpoint of each job at most."""

from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from db.blobs import add_blob, release_blobs
from db.clock import utcnow
from db.jobs._moves import hold
from db.jobs.queries import find_job
from db.models import FINAL_STATES, Job, JobCheckpoint, JobState
from db.storage import ObjectStore

_REPEATED_WITHIN = timedelta(days=1)


def save_checkpoint(
    s: Session, store: ObjectStore, job_id: str, token: str, *, step_key: str, sha256: str, size_bytes: int
) -> bool:
    """Notes stored bytes as the job's checkpoint; those it replaces are given up. False: stale.

    `step_key` is the step cache's key of the result that the step will have. Raises `ObjectMissing`.
    """
    job = find_job(s, job_id)
    if job is None or not hold(s, job_id, token):
        return False
    add_blob(s, store, job.project_id, sha256, size_bytes)
    before = s.get(JobCheckpoint, job_id, populate_existing=True)
    replaced = [] if before is None else [before.sha256]
    checkpoint = before or JobCheckpoint(job_id=job_id, project_id=job.project_id)
    checkpoint.step_key = step_key
    checkpoint.sha256 = sha256
    checkpoint.size_bytes = size_bytes
    checkpoint.saved_at = utcnow()
    s.add(checkpoint)
    release_blobs(s, store, job.project_id, replaced)
    return True


def find_checkpoint(s: Session, job_id: str, step_key: str) -> JobCheckpoint | None:
    """What an earlier attempt saved in the step whose result has this key.

    Its bytes may be given up before they are copied: upon `ObjectMissing` begin the step anew.
    """
    found = s.get(JobCheckpoint, job_id, populate_existing=True)
    return found if found is not None and found.step_key == step_key else None


def drop_checkpoint(s: Session, store: ObjectStore, job_id: str) -> None:
    """Forgets the job's checkpoint, where it has one: call it under the fence, or once the job is over."""
    found = s.get(JobCheckpoint, job_id, populate_existing=True)
    if found is not None:
        s.delete(found)
        release_blobs(s, store, found.project_id, [found.sha256])


def pass_on_checkpoint(s: Session, job_id: str, to_job_id: str) -> None:
    """Gives a job's checkpoint to the one that repeats it."""
    moved = update(JobCheckpoint).where(JobCheckpoint.job_id == job_id).values(job_id=to_job_id)
    s.execute(moved, execution_options={"synchronize_session": False})


def past_checkpoints(s: Session, now: datetime, limit: int = 100) -> list[str]:
    """Ids of jobs whose checkpoint nobody needs: drop each in a transaction of its own.

    That is when they succeeded, and a day after they ended otherwise, for until then they may be repeated.
    """
    long_over = Job.state.in_(FINAL_STATES) & (Job.finished_at < now - _REPEATED_WITHIN)
    over = select(JobCheckpoint.job_id).join(Job).where((Job.state == JobState.SUCCEEDED) | long_over)
    return list(s.scalars(over.order_by(JobCheckpoint.job_id).limit(limit)))
