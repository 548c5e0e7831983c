"""What users do to jobs: submit, cancel, retry."""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.clock import utcnow
from db.errors import AssetNotReady, Conflict, JobFinished, NotFound, QuotaExceeded
from db.events import add_event
from db.ids import new_id
from db.jobs._moves import finish, move
from db.jobs.checkpoints import pass_on_checkpoint
from db.jobs.queries import get_job
from db.models import Asset, AssetKind, AssetState, Job, JobState, JobStep, StepState
from db.projects import check_space, lock_project, queued_jobs


def submit(
    s: Session,
    *,
    project_id: str,
    name: str,
    labels: Mapping[str, str],
    model_id: str,
    data: Mapping[str, str],
    models: Iterable[str] = (),
    spec: Mapping[str, Any],
    preflight: Mapping[str, Any],
    queue: str,
    time_limit_s: float,
    retry_of: str | None = None,
) -> Job:
    """A queued job; ring for it after the commit.

    `data` maps roles to dataset ids, `spec` is a CompressionSpec's JSON, and `models` are the ids of the models
    that its steps name beside `model_id`. All of them stay until the job is over: deleting one is refused.
    Raises `NotFound`, `AssetNotReady`, `QuotaExceeded` (`max_queued_jobs`, or `max_stored_bytes` when the
    project is already full).
    """
    project = lock_project(s, project_id)
    for other_id in (model_id, *(models := list(models))):
        _check_asset(s, project_id, AssetKind.MODEL, other_id)
    for dataset_id in data.values():
        _check_asset(s, project_id, AssetKind.DATASET, dataset_id)
    queued = queued_jobs(s, project_id)
    if queued >= project.max_queued_jobs:
        raise QuotaExceeded("max_queued_jobs", limit=project.max_queued_jobs, used=queued, wanted=1)
    check_space(s, project, wanted_bytes=1)
    now = utcnow()
    job = Job(
        id=new_id("job"),
        project_id=project_id,
        name=name,
        labels=dict(labels),
        model_id=model_id,
        data=dict(data),
        models=models,
        spec=dict(spec),
        preflight=dict(preflight),
        retry_of=retry_of,
        state=JobState.QUEUED,
        queue=queue,
        time_limit_s=time_limit_s,
        attempt=0,
        ran_s=0.0,
        fraction=0.0,
        message="",
        created_at=now,
        queued_at=now,
        steps=[_step(index, step["method"]) for index, step in enumerate(spec["steps"])],
        artifacts=[],
    )
    s.add(job)
    s.flush()
    add_event(s, job.id, "state", {"state": JobState.QUEUED})
    return job


def request_cancel(s: Session, project_id: str, job_id: str) -> Job:
    """A queued job is cancelled at once, a running one becomes cancelling; asking again changes nothing.

    Raises `NotFound`, and `JobFinished` if the job is over.
    """
    now = utcnow()
    asked = {"cancel_requested_at": now}
    job = get_job(s, project_id, job_id)
    while job.state in (JobState.QUEUED, JobState.RUNNING):
        finish(s, job_id, [JobState.QUEUED], JobState.CANCELLED, now, values=asked) or move(
            s, job_id, [JobState.RUNNING], JobState.CANCELLING, values=asked
        )
        changed = get_job(s, project_id, job_id)
        if changed.cancel_requested_at is not None:
            return changed
        job = changed
    if job.state.is_final:
        raise JobFinished(f"The job {job_id} is {job.state} and can no longer be cancelled")
    return job


def retry(s: Session, project_id: str, job_id: str) -> Job:
    """A new job like a failed, cancelled or expired one; ring for it after the commit.

    Steps that the old one finished are served from the step cache, and it goes on from the old one's
    checkpoint where that has one. Raises what `submit` raises, and
    `Conflict` for a job that has not ended so.
    """
    job = get_job(s, project_id, job_id)
    if job.state not in (JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED):
        raise Conflict(f"The job {job_id} is {job.state}; only a failed, cancelled or expired one is retried")
    again = submit(
        s,
        project_id=project_id,
        name=job.name,
        labels=job.labels,
        model_id=job.model_id,
        data=job.data,
        models=job.models or (),
        spec=job.spec,
        preflight=job.preflight,
        queue=job.queue,
        time_limit_s=job.time_limit_s,
        retry_of=job.id,
    )
    pass_on_checkpoint(s, job.id, again.id)
    return again


def _check_asset(s: Session, project_id: str, kind: AssetKind, asset_id: str) -> None:
    """`delete_asset` waits for the same locked project, so the asset stays until the job is committed."""
    asset = s.scalars(select(Asset).where(Asset.id == asset_id, Asset.project_id == project_id)).one_or_none()
    if asset is None or asset.kind is not kind or asset.deleted_at is not None:
        raise NotFound(f"There is no {kind} {asset_id}")
    if asset.state is not AssetState.READY:
        raise AssetNotReady(f"The {kind} {asset_id} is {asset.state}", hint="Wait until its state is ready.")


def _step(index: int, method: str) -> JobStep:
    return JobStep(index=index, method=method, state=StepState.PENDING, cached=False)
