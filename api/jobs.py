"""Jobs as callers see them: with their place in the queue and what they wait for."""

from sqlalchemy.orm import Session

from api import views
from api.auth import Caller
from api.schemas import Job
from api.services import Services
from db import jobs, models
from db.models import JobState
from db.workers import live_workers

SILENCE_S = 60


def show(services: Services, caller: Caller, job_id: str) -> Job:
    """Raises `NotFound`."""
    with services.database.read() as s:
        row = jobs.get_job(s, caller.project_id, job_id)
        position = jobs.queue_position(s, row)
        return views.job(row, queue_position=position, waiting_for=_waiting_for(s, row, position))


def _waiting_for(s: Session, job: models.Job, position: int | None) -> str | None:
    if job.state is not JobState.QUEUED:
        return None
    if not live_workers(s, job.queue, within_s=SILENCE_S):
        if job.queue == "cuda":
            return "a worker with a GPU: none is running"
        return f"a worker: none has reported for {SILENCE_S} s"
    if job.message:
        return job.message
    before = (position or 1) - 1
    return (
        f"a free worker, behind {before} other job{'s' if before > 1 else ''}" if before else "a free worker"
    )
